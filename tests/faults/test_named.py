"""Regression tests for bugs in earlier versions of the proxy, as users would have seen them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.surroundings import (
    NO_MORE_PROCESSES,
    descriptors,
    limited,
    other_system,
    unread_log,
)
from tests.postfix.devlog import DevLog, may_unshare
from tests.support.answering import Answering
from tests.support.fixtures import Serve, Spawn
from tests.support.peers import TIMEOUT, Peer
from tests.support.proxies import ROOT
from tests.support.upstream import (
    MESSAGE,
    Upstream,
    begins_message,
    greeted,
    in_data,
    quits,
    relays,
    takes_message,
)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="requires root")
NAME_SPACES = pytest.mark.skipif(not may_unshare(), reason="requires mount namespaces")


def sends_message(client: Peer) -> None:
    client.says(*MESSAGE)


def test_filter_leaving_process_group_affects_no_other_session(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    escape = "import os,time; os.setpgid(0, os.getpgid(os.getppid())); time.sleep(5)"
    command = f"case $SENDER in evil*) exec {sys.executable} -ISc '{escape}';; esac"
    server = serve("-d", str(tmp_path), "-t", "0.5", "-c", command, upstream.address)
    bystander = server.client()
    behind = in_data(bystander, upstream)
    evil = server.client()
    peer = in_data(evil, upstream, b"evil@example")
    sends_message(evil)
    takes_message(evil, peer, *MESSAGE)
    sends_message(bystander)
    takes_message(bystander, behind, *MESSAGE)
    assert server.process.poll() is None
    assert not os.listdir(tmp_path)  # noqa: PTH208


#: Advances the clock by twenty seconds at every write to a file.
_SLOW_DISK = """
late, now = 0.0, time.monotonic
time.monotonic = lambda: now() + late
def write(descriptor, octets):
    global late
    if is_file(descriptor):
        late += 20
    return posix.write(descriptor, octets)
ours = [write]
"""


def test_filter_timeout_excludes_time_to_write_message_file(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    arguments = [upstream.address, "-d", str(tmp_path), "-c", "echo '550 virus' >&2; exit 1"]
    client = spawn(*arguments, command=other_system(_SLOW_DISK)).client
    peer = in_data(client, upstream)
    sends_message(client)
    client.sees(b"550 virus")
    peer.sees(b"QUIT")


@NAME_SPACES
def test_unread_log_delays_neither_messages_nor_exit(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    with unread_log(tmp_path) as prelude:
        server = serve("-v", upstream.address, prelude=prelude)
        bystander = server.client()
        greeted(bystander, upstream)
        client = server.client()
        peer = in_data(client, upstream)
        for number in range(40):
            if number:
                begins_message(client, peer)
            sends_message(client)
            takes_message(client, peer, *MESSAGE)
        server.stop()
        bystander.sees_reply(b"421 ")
        assert server.exit_status() == 0


#: The numbers of other clients. For some numbers, the limit of forty descriptors leaves none for a
#: filter.
OTHERS = [1, *range(12, 17)]


@pytest.mark.parametrize("idle", OTHERS)
def test_message_is_filtered_despite_descriptor_shortage(
    serve: Serve, answering: Answering, tmp_path: Path, idle: int
) -> None:
    server = serve(
        *("-d", str(tmp_path), "-c", "echo '550 virus' >&2; exit 1", answering.address),
        prelude=limited("RLIMIT_NOFILE", 40),
        variables={"POSTPROX_CLOCK_SPEED": "20"},  # slots are checked each second
    )
    others = [server.client() for _ in range(idle)]
    client = server.client()
    for line in (b"EHLO x", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"x\r\n."):
        client.says(line)
    for other in others:  # in sequence, so that each slot is reused immediately
        other.sees_reply(b"220 ")
        other.leaves()
    told = [client.line()[:3] for _ in range(6)]
    assert told == [b"220", b"250", b"250", b"250", b"354", b"550"]
    assert not answering.messages


#: Makes the write of a message's second block fail. Later writes succeed.
_WRITE_FAILS = """
blocks = 0
def write(descriptor, octets):
    global blocks
    blocks += len(octets) >= 65536 and not is_file(descriptor)
    if blocks == 2:
        blocks += 1
        raise OSError(errno.ENOBUFS, "No buffer space available")
    return posix.write(descriptor, octets)
ours = [write]
"""


def test_failed_write_ends_transmission_of_message(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    system = other_system(_WRITE_FAILS.replace("errno.ENOBUFS", str(errno.ENOBUFS)))
    client = spawn(upstream.address, "-d", str(tmp_path), command=system).client
    peer = in_data(client, upstream)
    client.sends(b"%068d\r\n" * 6000 % tuple(range(6000)) + b".\r\n")
    peer.sees(b"DATA")
    peer.says(b"354 go on")
    number = 0
    while line := peer.line():
        assert line != b".\r\n"
        assert line == b"%068d\r\n" % number or not line.endswith(b"\n")
        number += 1
    assert number < 6000
    client.sees_reply(b"451 ")


@ROOT_ONLY
def test_failed_resolver_thread_leaves_no_open_descriptor(serve: Serve, upstream: Upstream) -> None:
    port = upstream.address.rpartition(":")[2]
    server = serve("--log", "syslog", f"localhost:{port}", command=NO_MORE_PROCESSES)
    open_by = []
    for _ in range(12):
        client = server.client()
        client.sees_reply(b"421 ")
        client.sees_end()
        client.leaves()
        open_by.append(descriptors(server.process.pid))
    assert open_by[-1] <= open_by[0] + 2


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
def test_proxy_awaits_final_reply_despite_signal(
    spawn: Spawn, upstream: Upstream, name: str
) -> None:
    proxy = spawn(upstream.address)
    peer = in_data(proxy.client, upstream)
    sends_message(proxy.client)
    peer.sees(b"DATA")
    peer.says(b"354 go on")
    peer.sees(*MESSAGE)
    proxy.process.send_signal(signal.Signals[f"SIG{name}"])
    peer.says(b"250 queued")
    proxy.client.sees(b"250 queued")
    assert proxy.exit_status() in (0, 1)


@pytest.mark.parametrize("behind", [0, 6000, 60_000])
def test_client_disconnect_after_pipelined_input_is_detected(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, behind: int
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    proxy = spawn("-c", f"read -r _ < {gate}", "-d", str(tmp_path), upstream.address)
    peer = in_data(proxy.client, upstream)
    sends_message(proxy.client)
    proxy.client.sends(b"NOOP\r\n" * (behind // 6))
    proxy.client.leaves()
    peer.sees(b"QUIT")
    assert proxy.exit_status() in (0, 1)
    assert os.listdir(tmp_path) == ["gate"]  # noqa: PTH208


#: The permitted processor time for one client in seconds. Processor time does not depend on load.
STALL = 0.1


def test_logging_long_recipient_addresses_does_not_delay_session(
    serve: Serve, answering: Answering, tmp_path: Path
) -> None:
    server = serve("-d", str(tmp_path), "-c", "exit 2", answering.address)
    client = server.client()
    client.sees_reply(b"220 ")
    long = b"\xff" * 16_000
    for line in (b"EHLO x", b"MAIL FROM:<%b>" % long, *[b"RCPT TO:<%b>" % long] * 20):
        client.asks(line, b"250 ")
    client.asks(b"DATA", b"354 ")
    before = used_processor(server.process.pid)
    client.says(b"x", b".")
    client.sees(b"250 ok")
    client.asks(b"QUIT", b"221 ")
    client.sees_end()
    assert used_processor(server.process.pid) - before < STALL


def used_processor(pid: int) -> float:
    """Return a process's processor time in seconds, without its children."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


#: Records the thread that closes each large file.
_WHO_CLOSES = """
loop = _thread.get_ident()
def close(descriptor):
    if is_file(descriptor) and posix.fstat(descriptor).st_size > 1 << 24:
        told = posix.open(posix.environ[b"TOLD"], posix.O_WRONLY)
        posix.write(told, b"the loop" if _thread.get_ident() == loop else b"another thread")
        posix.close(told)
    posix.close(descriptor)
ours = [close]
"""
_LARGE = 20_000_000


@pytest.mark.parametrize(
    ("lines", "command"),
    [
        (_LARGE // 72, []),
        (1, ["-c", f'head -c {_LARGE} /dev/zero > "$OUTFILE"; echo "550 no" >&2; exit 1']),
    ],
    ids=["message", "OUTFILE"],
)
def test_freeing_large_file_does_not_delay_other_sessions(
    spawn: Spawn, answering: Answering, tmp_path: Path, lines: int, command: list[str]
) -> None:
    spool, told = tmp_path / "spool", tmp_path / "told"
    spool.mkdir()
    os.mkfifo(told)
    arguments = [answering.address, "-d", str(spool), *command]
    system, variables = other_system(_WHO_CLOSES), {"TOLD": str(told)}
    client = spawn(*arguments, command=system, variables=variables).client
    client.sees_reply(b"220 ")
    for line in (b"EHLO x", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>"):
        client.asks(line, b"250 ")
    client.asks(b"DATA", b"354 ")
    client.sends((b"x" * 70 + b"\r\n") * lines + b".\r\n")
    client.sees_reply(b"550 " if command else b"250 ")
    closings = told.read_text()  # the thread that closed each large file
    assert closings
    assert closings.replace("another thread", "") == ""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide an installation that these tests may modify."""
    prefix = tmp_path_factory.mktemp("installed")
    install = ["sh", f"{ROOT}/packaging/install", "--prefix", str(prefix)]
    subprocess.run([*install, "--python", sys.executable], check=True, capture_output=True)
    (code,) = prefix.glob("lib/postprox/*/session")
    code.unlink()
    cache = prefix / "lib/postprox/postprox/core/__pycache__"
    cache.mkdir()
    os.mkfifo(cache / f"session.{sys.implementation.cache_tag}.pyc")
    return prefix


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_proxy_interrupted_during_startup_sends_nothing_to_client(
    spawn: Spawn, installed: Path, name: str
) -> None:
    """The interpreter waits for a module's byte code, whose file is a FIFO without a writer."""
    proxy = spawn("127.0.0.1:1", command=[str(installed / "sbin/postprox")])
    while Path(f"/proc/{proxy.process.pid}/wchan").read_text() != "wait_for_partner":
        assert proxy.process.poll() is None
    proxy.process.send_signal(signal.Signals[f"SIG{name}"])
    proxy.client.sees_end()
    assert proxy.exit_status()


def test_environment_entry_without_name_is_not_an_error(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    nameless = (
        "import ctypes, sys\n"
        "words = [word.encode() for word in sys.argv[1:]]\n"
        f"entries = [b'PATH=/usr/bin:/bin', b'PYTHONPATH={ROOT}', b'=x']\n"
        "vector = lambda items: (ctypes.c_char_p * (len(items) + 1))(*items, None)\n"
        "ctypes.CDLL(None).execve(words[0], vector(words), vector(entries))\n"
    )
    proxy = spawn(
        *("-c", "exit 0", "-d", str(tmp_path), upstream.address),
        prelude=[sys.executable, "-c", nameless],
    )
    peer = in_data(proxy.client, upstream)
    sends_message(proxy.client)
    takes_message(proxy.client, peer, *MESSAGE)


def test_outfile_changed_during_transmission_is_not_delivered(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = (
        f'yes {"7" * 70} | head -n 300000 > "$OUTFILE"; exec 3<>"$OUTFILE";'
        f"(read -r _ < {gate}; {sys.executable} -ISc 'import posix; posix.ftruncate(3, 9)'; echo"
        f" > {gate}) > /dev/null 2>&1 & exit 0"
    )
    proxy = spawn("-c", command, "-d", str(tmp_path), upstream.address)
    peer = in_data(proxy.client, upstream)
    sends_message(proxy.client)
    peer.sees(b"DATA")
    peer.says(b"354 go on")
    assert peer.line() == b"7" * 70 + b"\r\n"  # the proxy now waits for buffer space
    gate.write_text("\n")
    gate.read_text()
    last = b""
    while line := peer.line():
        last = line
    assert last != b".\r\n"
    proxy.client.sees_reply(b"451 ")


def test_unsolicited_334_reply_is_rejected(spawn: Spawn, upstream: Upstream) -> None:
    proxy = spawn(upstream.address)
    peer = greeted(proxy.client, upstream)
    relays(proxy.client, peer, b"EHLO x")
    proxy.client.says(b"NOOP")
    peer.sees(b"NOOP")
    peer.says(b"334 VXNlcg==")
    proxy.client.sees_reply(b"421 ")
    proxy.client.says(b"BDAT 5 LAST")
    assert peer.line() in (b"", b"QUIT\r\n")


@pytest.mark.parametrize("name", ["OUTFILE", "EMAIL"])
def test_removing_directory_created_by_filter_preserves_link_target(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "kept").touch()
    spool = tmp_path / "spool"
    spool.mkdir()
    command = (
        f'rm "${name}"; mkdir -p "${name}/deep/er"; touch "${name}/deep/file"; '
        f'ln -s {precious} "${name}/deep/link"; exit 0'
    )
    proxy = spawn("-c", command, "-d", str(spool), upstream.address)
    peer = in_data(proxy.client, upstream)
    sends_message(proxy.client)
    takes_message(proxy.client, peer, *MESSAGE)
    quits(proxy.client, peer)
    assert proxy.exit_status() == 0
    assert not list(spool.iterdir())
    assert (precious / "kept").exists()


#: Makes close(2) wait for a gate and then fail, as close(2) can on NFS.
_CLOSE_WAITS = """
def close(descriptor):
    file = is_file(descriptor)
    if file:
        gate = posix.open(posix.environ[b"GATE"], posix.O_RDONLY)
        posix.read(gate, 1)
        posix.close(gate)
    posix.close(descriptor)
    if file:
        raise OSError(5, "Input/output error")
ours = [close]
"""


def test_client_reply_precedes_file_removal(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    spool, gate = tmp_path / "spool", tmp_path / "gate"
    spool.mkdir()
    os.mkfifo(gate)
    client = spawn(
        *("-v", upstream.address, "-d", str(spool)),
        command=other_system(_CLOSE_WAITS),
        variables={"GATE": str(gate)},
    ).client
    peer = in_data(client, upstream)
    sends_message(client)
    takes_message(client, peer, *MESSAGE)
    gate.write_text("\n")
    quits(client, peer)


@pytest.mark.parametrize("reset", [False, True])
def test_disconnected_clients_free_their_slots(
    serve: Serve,
    upstream: Upstream,
    reset: bool,
) -> None:
    server = serve(
        *("--max-sessions", "3", upstream.address),
        variables={
            "POSTPROX_CLOCK_SPEED": "10"
        },  # the test can wait for a timeout of 30 s, but not of 300 s
    )
    for _ in range(3):
        client = server.client()
        peer = greeted(client, upstream)
        relays(client, peer, b"EHLO x")
        client.says(b"RCPT TO:<c@example>")
        peer.sees(b"RCPT TO:<c@example>")
        if reset:
            client.resets()
        client.leaves()
    served = server.client()
    greeted(served, upstream)


@NAME_SPACES
def test_message_aborted_by_signal_is_not_logged_as_accepted(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    log = DevLog(tmp_path / "dev")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    proxy = spawn(
        *("-v", "-d", str(tmp_path), "-c", f"echo > {gate}; sleep 60", upstream.address),
        prelude=log.private_dev(),
    )
    in_data(proxy.client, upstream)
    sends_message(proxy.client)
    gate.read_text()
    proxy.process.terminate()
    proxy.client.sees_reply(b"421 ")
    proxy.exit_status()
    log.close()
    lines = [line for line in log.lines if "reply=" in line]
    assert len(lines) == 1
    assert "accept" not in lines[0].partition("]: ")[2].partition(" client=")[0]


REJECT = "echo '550 virus' >&2; exit 1"


def filter_ends_while_stopped(process: subprocess.Popen[bytes], gate: Path, ended: Path) -> None:
    """Suspend the proxy until its filter has exited and the filter's time limit has expired."""
    gate.parent.joinpath("started").read_text()
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    with ended.open("rb") as end, gate.open("r+b", buffering=0) as opened:
        opened.write(b"\n")
        end.read()  # end of file, because the filter has exited
    time.sleep(1.2)  # 36 s of the proxy's clock
    process.send_signal(signal.SIGCONT)


@pytest.fixture
def gated(tmp_path: Path) -> tuple[Path, Path, str]:
    """Provide a gate, a pipe that the filter closes on exit, and the filter command."""
    gate, ended = tmp_path / "gate", tmp_path / "ended"
    for path in (gate, ended, tmp_path / "started"):
        os.mkfifo(path)
    command = f"exec 3<>{ended} 4>{ended} 3<&-; echo > {tmp_path}/started; read -r _ < {gate};"
    return gate, ended, f"{command} {REJECT}"


FAST = {"POSTPROX_CLOCK_SPEED": "30"}


def test_resumed_spawned_proxy_sends_rejection(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, gated: tuple[Path, Path, str]
) -> None:
    gate, ended, command = gated
    proxy = spawn("-t", "30", "-c", command, upstream.address, variables=FAST)
    in_data(proxy.client, upstream)
    sends_message(proxy.client)
    filter_ends_while_stopped(proxy.process, gate, ended)
    proxy.client.sees(b"550 virus")


def test_listening_proxy_relays_rejection_after_suspension(
    serve: Serve, upstream: Upstream, tmp_path: Path, gated: tuple[Path, Path, str]
) -> None:
    gate, ended, command = gated
    server = serve("-t", "30", "-c", command, upstream.address, variables=FAST)
    client = server.client()
    in_data(client, upstream)
    sends_message(client)
    filter_ends_while_stopped(server.process, gate, ended)
    client.sees(b"550 virus")


@pytest.fixture
def blocked(tmp_path: Path) -> str:
    """Provide a filter that cannot exit until the proxy reads its standard error."""
    os.mkfifo(tmp_path / "started")
    return f"echo > {tmp_path}/started; head -c 4000000 /dev/zero >&2; echo >&2; {REJECT}"


def filter_blocks_while_stopped(process: subprocess.Popen[bytes], started: Path) -> None:
    """Suspend the proxy while its filter writes, until the filter's time limit has expired."""
    started.read_text()
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    time.sleep(1.5)  # 45 s of the proxy's clock
    process.send_signal(signal.SIGCONT)


def test_filter_can_reject_after_spawned_proxy_was_suspended(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, blocked: str
) -> None:
    proxy = spawn("-t", "30", "-c", blocked, upstream.address, variables=FAST)
    in_data(proxy.client, upstream)
    sends_message(proxy.client)
    filter_blocks_while_stopped(proxy.process, tmp_path / "started")
    proxy.client.sees(b"550 virus")


def test_filter_can_reject_message_after_server_was_suspended(
    serve: Serve, upstream: Upstream, tmp_path: Path, blocked: str
) -> None:
    server = serve("-t", "30", "-c", blocked, upstream.address, variables=FAST)
    client = server.client()
    in_data(client, upstream)
    sends_message(client)
    filter_blocks_while_stopped(server.process, tmp_path / "started")
    client.sees(b"550 virus")


#: Makes the handling of NOOP take an hour, during which the filter exits.
_LONG_HANDLER = """
late, now = 0.0, time.monotonic
time.monotonic = lambda: now() + late
def read(descriptor, size):
    global late
    octets = posix.read(descriptor, size)
    if octets == b"NOOP\\r\\n":
        posix.close(posix.open(posix.environ[b"GATE"], posix.O_WRONLY))
        posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOWAIT)
        late += 3600
    return octets
ours = [read]
"""


def test_rejection_reaches_client_after_slow_noop_handling(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    for path in (started, gate):
        os.mkfifo(path)
    client = spawn(
        *(upstream.address, "-c", f"echo > {started}; read -r _ < {gate}; {REJECT}"),
        command=other_system(_LONG_HANDLER),
        variables={"GATE": str(gate)},
    ).client
    in_data(client, upstream)
    sends_message(client)
    started.read_text()
    client.says(b"NOOP")
    client.sees(b"550 virus")


#: Makes the proxy a subreaper, which inherits orphans like process 1 (prctl(2)).
INHERITING = [
    *(sys.executable, "-I", "-c"),
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execv(sys.argv[1], sys.argv[1:])",
]
LEAVES_AN_ORPHAN = "(sleep 0.01 &) ; exit 0"


def wait_for_no_children(pid: int) -> None:
    end = time.monotonic() + TIMEOUT
    while Path(f"/proc/{pid}/task/{pid}/children").read_text():
        assert time.monotonic() < end, "a child process is left"
        time.sleep(0.01)


def test_spawned_proxy_reaps_orphans(spawn: Spawn, upstream: Upstream, tmp_path: Path) -> None:
    proxy = spawn(
        *("-c", LEAVES_AN_ORPHAN, "-d", str(tmp_path), upstream.address), prelude=INHERITING
    )
    peer = in_data(proxy.client, upstream)
    sends_message(proxy.client)
    takes_message(proxy.client, peer, *MESSAGE)
    wait_for_no_children(proxy.process.pid)
    quits(proxy.client, peer)


def test_listening_proxy_reaps_orphans(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    late = "case $SENDER in late*) sleep 0.3 | cat;; esac"
    server = serve(
        *("-t", "0.1", "-c", f"{late}; {LEAVES_AN_ORPHAN}", "-d", str(tmp_path), upstream.address),
        prelude=INHERITING,
    )
    for sender in (b"a@example", b"late@example"):
        client = server.client()
        peer = in_data(client, upstream, sender)
        sends_message(client)
        takes_message(client, peer, *MESSAGE)
        quits(client, peer)
    wait_for_no_children(server.process.pid)


_NO_WAIT4 = """
def waitpid(pid, options):
    raise OSError(38, "Function not implemented")
ours = [waitpid]
"""
_NO_WAIT = """
def waitpid(pid, options):
    raise OSError(38, "Function not implemented")
def waitid(*arguments):
    raise OSError(38, "Function not implemented")
ours = [waitpid, waitid]
"""


@pytest.mark.parametrize(("functions", "reply"), [(_NO_WAIT4, b"550 "), (_NO_WAIT, b"451 ")])
def test_failed_wait_call_prevents_delivery(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, functions: str, reply: bytes
) -> None:
    arguments = [upstream.address, "-t", "2", "-d", str(tmp_path), "-c", REJECT]
    client = spawn(*arguments, command=other_system(functions)).client
    peer = in_data(client, upstream)
    sends_message(client)
    client.sees_reply(reply)
    peer.sees(b"QUIT")


def test_limit_of_four_descriptors_causes_no_traceback(spawn: Spawn) -> None:
    # Without -S, the interpreter's own module `site` may fail before the program starts.
    program = [sys.executable, "-S", "-m", "postprox"]
    proxy = spawn("127.0.0.1:9", command=program, prelude=limited("RLIMIT_NOFILE", 4))
    proxy.client.sees_reply(b"421 4.3.0 ")
    proxy.client.sees_end()
    assert proxy.exit_status() == 1
