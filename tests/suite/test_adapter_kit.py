"""The adapter kit: its command line, its delivery modes, and the cleanup of processes and files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conformance.adapters import direct, launch
from tests.conformance.adapters.adapter import Adapter, Program
from tests.conformance.adapters.command_line import Address, UsageError, parse
from tests.conformance.adapters.deferred import _Head
from tests.conformance.adapters.direct import Direct, Early, Wiring
from tests.conformance.adapters.loop import CHUNK, Loop, Stream, connect
from tests.conformance.adapters.names import OwnName
from tests.conformance.paths import ADAPTER_LAUNCHER
from tests.suite.adapting import RELAY, Adapted, adapted, processes_with, wait_for, write_adapter

pytestmark = pytest.mark.any_account

# --- the command line


def test_command_line_is_parsed() -> None:
    options = parse(["-c", "cat", "-d", "/x", "-r", "-l", "127.0.0.1:1", "--foreground", "h:2"])
    assert (options.command, str(options.directory), options.reject) == ("cat", "/x", True)
    assert (options.listen, options.upstream) == (Address("127.0.0.1", 1), Address("h", 2))
    assert options.foreground


def test_program_arguments_exclude_addresses() -> None:
    options = parse(["-c", "cat", "-l", "127.0.0.1:1", "-r", "h:2"])
    assert options.words == ("-c", "cat", "-r")


@pytest.mark.parametrize(
    "words", [["-rccat"], ["--reject", "--command=cat"], ["--com", "cat", "-r"]]
)
def test_alternative_option_forms_are_parsed(words: list[str]) -> None:
    options = parse([*words, "-l", "1", "h:2"])
    assert (options.command, options.reject) == ("cat", True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["h:1"], "support mode stdio"),
        (["-l", "1"], "upstream server"),
        (["-l", "1", "h:1", "--strict"], "option --strict not recognized"),
        (["-l", "1", "h:1", "-c"], "option -c requires argument"),
        (["-l", "1", "h"], "h: must be HOST:PORT"),
    ],
)
def test_unsupported_command_line_is_an_error(words: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parse(words)


def test_listening_address_is_found_without_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(*server.getsockname())
        assert address.is_listening()
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not address.is_listening()


def test_bound_socket_is_not_reported_as_listening() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not Address(*bound.getsockname()).is_listening()


# --- rewriting


def test_only_first_of_two_received_fields_is_removed() -> None:
    head = _Head((b"received:",))
    text = b"Received: by me\r\n\twith x\r\nReceived: by you\r\nSubject: x\r\n\r\n"
    assert head.without_added(text) == text.partition(b"\twith x\r\n")[2]


def test_added_field_is_removed_even_if_octets_arrive_separately() -> None:
    head = _Head((b"received:",))
    text = b"Received: by me\r\n with x\r\nRe: x\r\n\r\n"
    octets = [head.without_added(text[at : at + 1]) for at in range(len(text))]
    assert b"".join(octets) == b"Re: x\r\n\r\n"


def test_message_without_added_field_is_unchanged() -> None:
    assert _Head((b"received:",)).without_added(b".\r\n") == b".\r\n"


def test_added_field_at_end_of_header_is_removed() -> None:
    head = _Head((), (b"x-peer:",))
    assert head.without_added(b"Subject: x\r\nX-Peer: ::1\r\n\r\nX-Peer: b\r\n") == (
        b"Subject: x\r\n\r\nX-Peer: b\r\n"
    )


def test_added_field_is_removed_even_if_original_message_has_no_header() -> None:
    head = _Head((), (b"x-peer:",))
    text = b"no header\r\nX-Peer: ::1\r\nlast\r\n.\r\n"
    octets = [head.without_added(text[at : at + 1]) for at in range(len(text))]
    assert b"".join(octets) == b"no header\r\nlast\r\n.\r\n"


def test_message_without_field_added_at_end_is_unchanged() -> None:
    assert _Head((), (b"x-peer:",)).without_added(b"a\r\n.\r\n") == b"a\r\n.\r\n"


def test_program_name_in_greeting_is_replaced() -> None:
    names = OwnName(b"own.name")
    names.from_upstream(b"220 up.example ESMTP\r\n")
    assert names.to_client(b"220 own.name\r\n") == b"220 up.example ESMTP\r\n"


def test_removed_ehlo_keyword_is_restored_at_original_position() -> None:
    names = OwnName(b"own.name", removed=b"PIPELINING")
    names.from_upstream(b"220 up\r\n")
    names.from_upstream(b"250-up\r\n250-SIZE\r\n250-PIPELINING\r\n250 DSN\r\n")
    sent = names.to_client(b"250-own.name\r\n250-SIZE\r\n250 DSN\r\n")
    assert sent == b"250-up\r\n250-SIZE\r\n250-PIPELINING\r\n250 DSN\r\n"


# --- delivery mode Early


class Talk:
    """Both ends of one session through the relay."""

    def __init__(self, running: Adapted) -> None:
        self.client = running.connect()
        self.upstream = running.accept()
        self._up, self._down = self.upstream.makefile("rb"), self.client.makefile("rb")
        self.upstream.sendall(b"220 up\r\n")
        assert self._down.readline() == b"220 up\r\n"

    def ask(self, command: bytes, reply: bytes) -> None:
        """Send a command to the upstream server, and its reply to the client."""
        self.client.sendall(command)
        assert self._up.readline() == command
        self.upstream.sendall(reply)
        assert self._down.readline() == reply

    def begin(self) -> None:
        """Send an envelope and DATA."""
        self.ask(b"MAIL FROM:<a@example>\r\n", b"250 ok\r\n")
        self.ask(b"RCPT TO:<b@example>\r\n", b"250 ok\r\n")
        self.client.sendall(b"DATA\r\n")

    def seen(self) -> bytes:
        """Return the next line that the upstream server receives."""
        return self._up.readline()

    def told(self) -> bytes:
        """Return the next line that the client receives."""
        return self._down.readline()

    def close(self) -> None:
        """Close both ends."""
        for one in (self._up, self._down, self.client, self.upstream):
            one.close()


@pytest.fixture
def relay(tmp_path: Path) -> Path:
    """The directory of an adapter for the octet relay."""
    write_adapter(tmp_path)
    return tmp_path


def test_early_mode_does_not_relay_data_command_immediately(relay: Path) -> None:
    with adapted(relay) as running:
        talk = Talk(running)
        talk.begin()
        assert talk.told().startswith(b"354")
        talk.upstream.setblocking(False)
        with pytest.raises(BlockingIOError):
            talk.upstream.recv(1)
        talk.close()


def test_early_mode_relays_data_command_before_content(relay: Path) -> None:
    with adapted(relay) as running:
        talk = Talk(running)
        talk.begin()
        assert talk.told().startswith(b"354")
        talk.client.sendall(b"Subject: x\r\n\r\n.\r\n")
        assert talk.seen() == b"DATA\r\n"
        talk.upstream.sendall(b"354 go\r\n")
        assert [talk.seen() for _ in range(3)] == [b"Subject: x\r\n", b"\r\n", b".\r\n"]
        talk.close()


def test_early_mode_relays_refusal_of_data_as_final_reply(relay: Path) -> None:
    with adapted(relay) as running:
        talk = Talk(running)
        talk.begin()
        assert talk.told().startswith(b"354")
        talk.client.sendall(b"hello\r\n.\r\n")
        assert talk.seen() == b"DATA\r\n"
        talk.upstream.sendall(b"452 full\r\n")
        assert talk.told() == b"452 full\r\n"
        talk.ask(b"RSET\r\n", b"250 ok\r\n")
        talk.close()


def test_early_mode_relays_421_before_eof(relay: Path) -> None:
    with adapted(relay) as running:
        talk = Talk(running)
        talk.begin()
        assert talk.told().startswith(b"354")
        talk.client.sendall(b"hello\r\n")
        assert talk.seen() == b"DATA\r\n"
        talk.upstream.sendall(b"421 closing\r\n")
        talk.upstream.shutdown(socket.SHUT_WR)
        talk.client.sendall(b".\r\n")
        assert talk.told() == b"421 closing\r\n"
        assert talk.told() == b""
        talk.close()


def test_data_command_without_recipient_is_relayed_immediately(relay: Path) -> None:
    with adapted(relay) as running:
        talk = Talk(running)
        talk.ask(b"DATA\r\n", b"503 no\r\n")
        talk.close()


def test_auth_response_is_not_read_as_command(relay: Path) -> None:
    with adapted(relay) as running:
        talk = Talk(running)
        talk.ask(b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6\r\n")
        talk.ask(b"BDAT 200\r\n", b"501 no base64\r\n")
        talk.begin()
        assert talk.told().startswith(b"354")
        talk.close()


def test_message_from_disconnected_client_never_reaches_upstream(relay: Path) -> None:
    with adapted(relay) as running:
        talk = Talk(running)
        talk.begin()
        assert talk.told().startswith(b"354")
        talk.client.shutdown(socket.SHUT_WR)
        assert talk.seen() == b""
        talk.close()


# --- an upstream server that refuses connections

CONNECTS = "    upstream = socket.create_connection(address(sys.argv[2]))\n"
#: The connecting line of a relay that sends the client its connection error.
REPORTS = """\
    try:
        upstream = socket.create_connection(address(sys.argv[2]))
    except OSError as error:
        client.sendall(type(error).__name__.encode())
        client.close()
        continue
"""


@pytest.mark.parametrize("passage", ["Direct()", "Early()"])
def test_program_sees_refused_connection(tmp_path: Path, passage: str) -> None:
    write_adapter(tmp_path, passage, relay=RELAY.replace(CONNECTS, REPORTS))
    with adapted(tmp_path, refuses=True) as running, running.connect() as client:
        assert client.makefile("rb").read() == b"ConnectionRefusedError"


def test_program_connects_when_upstream_listens_again(tmp_path: Path) -> None:
    write_adapter(tmp_path, relay=RELAY.replace(CONNECTS, REPORTS))
    with adapted(tmp_path, refuses=True) as running:
        with running.connect() as client:
            assert client.makefile("rb").read() == b"ConnectionRefusedError"
        running.upstream.listen()
        Talk(running).close()


def test_upstream_specified_by_host_name_counts_as_reachable() -> None:
    with socket.socket() as unused:
        wiring = Wiring(unused, Address("a"), unused, Address("up.example", 25))
        assert wiring.is_upstream_reachable()


def test_next_client_is_accepted_if_program_connects_immediately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = Loop()

    async def late(loop: Loop, address: Address) -> Stream | None:
        stream = await connect(loop, address)
        await loop.wait(seconds=0.1)  # the program connects meanwhile
        return stream

    monkeypatch.setattr(direct, "connect", late)
    clients, program, upstream = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
    upstream_side = socket.socket()
    upstream_side.bind(("127.0.0.1", 0))
    for server in (clients, upstream_side):
        server.setblocking(False)
    ended, end = os.pipe()
    wiring = Wiring(clients, place_of(program), upstream_side, place_of(upstream))
    Early().start(loop, wiring)
    thread = threading.Thread(target=loop.run, args=(ended,), daemon=True)
    thread.start()
    connections = []
    before = open_descriptors()
    for server in (program, upstream):
        server.settimeout(5)  # less than the time limit for the program's connection
    for _ in range(2):
        connections.append(socket.create_connection(clients.getsockname()))
        connections.append(program.accept()[0])
        connections.append(socket.create_connection(upstream_side.getsockname()))
        connections.append(upstream.accept()[0])
    for sock in connections:
        sock.close()
    assert wait_for(lambda: open_descriptors() <= before)
    os.write(end, b"x")
    thread.join()
    for sock in (clients, program, upstream, upstream_side):
        sock.close()
    os.close(ended)
    os.close(end)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def place_of(server: socket.socket) -> Address:
    host, port = server.getsockname()
    return Address(host, port)


# --- the event loop


def test_reading_available_octets_does_not_delay_other_coroutines() -> None:
    loop, order = Loop(), []
    (busy, other), senders = zip(socket.socketpair(), socket.socketpair(), strict=True)
    for sender, size in zip(senders, (2 * CHUNK, 1), strict=True):
        sender.sendall(b"x" * size)
        sender.close()
    ended, end = os.pipe()

    async def read(sock: socket.socket, name: str) -> None:
        stream = Stream(loop, sock)
        while await stream.octets():
            order.append(name)
        if len(order) == 3:
            os.write(end, b"x")

    loop.start(read(busy, "busy"))
    loop.start(read(other, "other"))
    loop.run(until=ended)
    for sock in (busy, other):
        sock.close()
    os.close(ended)
    os.close(end)
    # The loop runs the coroutines of one poll in any order.
    assert "other" in order[:2]


# --- processes and files


def test_adapter_is_terminated_by_sigterm(relay: Path) -> None:
    with adapted(relay) as running:
        running.connect().close()
        running.process.terminate()
        assert running.process.wait() == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_program_leaves_no_processes_or_files(relay: Path, number: signal.Signals) -> None:
    with adapted(relay) as running:
        running.connect().close()
        assert running.files
        assert len(running.processes) == 2
        running.process.send_signal(number)
        running.process.wait()
        assert wait_for(lambda: not running.processes)
        assert running.files == []


def test_background_program_leaves_no_processes_or_files(tmp_path: Path) -> None:
    write_adapter(tmp_path, detaches=True)
    with adapted(tmp_path, "-v") as running:
        assert running.process.wait() == 0
        running.connect().close()
        (program,) = processes_with(f"{running.files[0]}/relay.py")
        os.kill(program, signal.SIGKILL)
        assert wait_for(lambda: not running.processes)
        assert running.files == []


def test_adapter_puts_foreground_program_into_background(relay: Path) -> None:
    with adapted(relay, "-v") as running:
        assert running.process.wait() == 0
        running.connect().close()


def test_signal_reaches_detached_program(tmp_path: Path) -> None:
    write_adapter(tmp_path, detaches=True)
    with adapted(tmp_path) as running:
        running.connect().close()
        running.process.terminate()
        assert running.process.wait() == -signal.SIGTERM
        assert wait_for(lambda: not running.processes)


def test_signals_are_forwarded_before_clients_are_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = Program(["true"], detaches=True)
    adapter = Adapter(lambda _: program, Direct())
    unused, anywhere = socket.socket(), Address("127.0.0.1", 0)
    wiring = Wiring(unused, anywhere, unused, anywhere)
    options = parse(["-l", "127.0.0.1:1", "--foreground", "h:2"])
    before = {number: signal.getsignal(number) for number in launch._PASSED_ON}
    handlers: list[object] = []

    def start_passage(*_: object) -> int:
        handlers.extend(map(signal.getsignal, launch._PASSED_ON))
        raise InterruptedError

    monkeypatch.setattr(launch, "adopt_orphans", lambda: None)
    monkeypatch.setattr(launch, "children", lambda: [os.getpid()])
    monkeypatch.setattr(launch, "_start_passage", start_passage)
    try:
        with pytest.raises(InterruptedError):
            launch._leave_in_background(adapter, wiring, program, tmp_path, options)
    finally:
        unused.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert all(callable(handler) for handler in handlers)
    assert len(handlers) == len(launch._PASSED_ON)


def test_killed_parent_leaves_no_processes_or_files(relay: Path) -> None:
    here = "import sys, time; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
    here += "from tests.suite.adapting import Adapted\n"
    here += "Adapted(Path(sys.argv[1])).connect(); print(flush=True); time.sleep(60)"
    root = str(Path(__file__).resolve().parents[2])
    argv = [sys.executable, "-c", here, str(relay), root]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
    assert wait_for(lambda: not processes_with(str(relay)))
    assert list(relay.glob("adapter-*")) == []


def test_failed_start_leaves_no_processes_or_files(tmp_path: Path) -> None:
    write_adapter(tmp_path, relay="raise SystemExit(3)")
    with adapted(tmp_path) as running:
        assert running.process.wait() == 3
        assert wait_for(lambda: not running.processes)
        assert running.files == []


def test_adapter_file_without_adapter_object_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.py").touch()
    command = [sys.executable, "-S", ADAPTER_LAUNCHER, tmp_path / "empty.py", "-l", "1", "h:1"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("empty.py: missing ADAPTER = Adapter(...)\n")


@pytest.mark.parametrize(
    ("code", "status", "printed"),
    [
        ("print('tool', 7, 'version 1.2.3-4')", 0, "1.2.3\n"),
        ("import sys; sys.stderr.write('tool V2.6b')", 0, "2.6b\n"),
        ("print('tool')", 1, ""),
    ],
)
def test_version_is_read_from_program_output(
    tmp_path: Path, code: str, status: int, printed: str
) -> None:
    write_adapter(tmp_path)
    path = tmp_path / "relay.py"
    command = f"[sys.executable, '-S', '-c', {code!r}]"
    path.write_text(path.read_text().replace("Early())", f"Early(), version={command})"))
    words = [sys.executable, "-S", str(ADAPTER_LAUNCHER), str(path), "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, printed)


def test_adapter_without_version_command_prints_no_version(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    words = [sys.executable, "-S", str(ADAPTER_LAUNCHER), str(tmp_path / "relay.py"), "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
