"""Tests of the program with one socket as descriptors 0, 1 and 2, as spawn(8) starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from postprox.core import replies
from tests.support.fixtures import Spawn
from tests.support.peers import listening
from tests.support.proxies import PYTHON, ROOT, environment, wait_for_end
from tests.support.upstream import (
    MESSAGE,
    Upstream,
    greeted,
    in_data,
    in_transaction,
    passes_next_message,
    quits,
    takes_message,
)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    directory = tmp_path / "spool"
    directory.mkdir()
    return directory


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


# Sessions


def test_proxy_with_one_socket_for_input_and_output_delivers_message(
    spawn: Spawn, upstream: Upstream, spool: Path
) -> None:
    proxy = spawn("-c", "echo noise; echo noise >&2", "-d", str(spool), upstream.address)
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    takes_message(proxy.client, peer, *MESSAGE)
    quits(proxy.client, peer)
    assert proxy.exit_status() == 0
    assert list(spool.iterdir()) == []


def test_proxy_sends_quit_upstream_after_client_eof(spawn: Spawn, upstream: Upstream) -> None:
    proxy = spawn(upstream.address)
    peer = greeted(proxy.client, upstream)
    proxy.client.ends()
    peer.sees(b"QUIT")
    peer.says(b"221 bye")
    proxy.client.sees_end()
    assert proxy.exit_status() == 0


def test_client_disconnect_before_221_reply_is_not_an_error(
    spawn: Spawn, upstream: Upstream
) -> None:
    proxy = spawn(upstream.address)
    peer = greeted(proxy.client, upstream)
    proxy.client.says(b"QUIT")
    proxy.client.leaves()
    peer.sees(b"QUIT")
    peer.says(b"221 bye")
    assert proxy.exit_status() == 0


def test_upstream_disconnect_after_quit_is_not_an_error(spawn: Spawn, upstream: Upstream) -> None:
    proxy = spawn(upstream.address)
    peer = greeted(proxy.client, upstream)
    proxy.client.says(b"QUIT")
    peer.sees(b"QUIT")
    peer.leaves()
    proxy.client.sees_reply(b"221 ")
    proxy.client.sees_end()
    assert proxy.exit_status() == 0


def test_unreachable_upstream_causes_421_reply(spawn: Spawn) -> None:
    with listening() as closed:
        where = Upstream(closed).address
    proxy = spawn(where)
    proxy.client.sees_reply(b"421 4.4.1 ")
    proxy.client.sees_end()
    proxy.client.leaves()
    assert proxy.exit_status() == 1


def test_upstream_disconnect_causes_421_reply(spawn: Spawn, upstream: Upstream) -> None:
    proxy = spawn(upstream.address)
    greeted(proxy.client, upstream).leaves()
    proxy.client.sees_reply(b"421 4.4.2 ")
    proxy.client.sees_end()
    proxy.client.leaves()
    assert proxy.exit_status() == 1


def test_pipes_can_replace_socket(upstream: Upstream) -> None:
    proxy = subprocess.Popen(
        [*PYTHON, "-m", "postprox", upstream.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    peer = upstream.greets()
    assert proxy.stdin is not None
    proxy.stdin.write(b"QUIT\r\n")
    proxy.stdin.flush()
    peer.sees(b"QUIT")
    peer.says(b"221 bye")
    assert proxy.communicate(timeout=20) == (b"220 up\r\n221 bye\r\n", b"")
    assert proxy.returncode == 0


def test_closed_standard_error_does_not_affect_filter(
    spawn: Spawn, upstream: Upstream, spool: Path
) -> None:
    command = "echo 550 no >&2; exit 1"
    closing = ("/bin/sh", "-c", 'exec "$@" 2>&-', "sh")
    proxy = spawn("-c", command, "-d", str(spool), upstream.address, prelude=closing)
    in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    proxy.client.sees(b"550 no")


def test_closed_standard_input_ends_session(upstream: Upstream) -> None:
    command = f"exec {' '.join(PYTHON)} -m postprox {upstream.address} <&- >&- 2>&-"
    proxy = subprocess.Popen(["/bin/sh", "-c", command], env=environment())
    peer = upstream.greets()
    peer.sees(b"QUIT")
    peer.says(b"221 bye")
    assert proxy.wait(20) == 0


# cli.stderr-silent


@pytest.mark.parametrize(
    "said", [b"221 bye\r\n", b"garbage\r\n", b"354 go on\r\n", b"\xff" * 70_000, b""]
)
def test_session_writes_nothing_to_standard_error(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, said: bytes
) -> None:
    with (tmp_path / "stderr").open("wb") as stderr:
        proxy = spawn("-vv", upstream.address, stderr=stderr.fileno())
    peer = greeted(proxy.client, upstream)
    proxy.client.sends(b"NO\0OP\r\nQUIT\r\n\xff")
    peer.sees(b"QUIT")
    peer.sends(said)
    peer.leaves()
    proxy.client.ends()
    proxy.exit_status()
    assert (tmp_path / "stderr").read_bytes() == b""


# Missing system resources


WITHOUT_NULL = """
import posix, sys
right = posix.open
def without_null(path, *how, **more):
    if path == "/dev/null":
        raise FileNotFoundError(2, "No such file or directory", path)
    return right(path, *how, **more)
posix.open = without_null
sys.argv[:1] = ["postprox"]
from postprox.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("mode", [(), ("-l1",), ("-l1", "--foreground")])
@pytest.mark.parametrize("closed", ["", "0<&-", "0<&- 1>&-"])
def test_missing_dev_null_is_reported_on_one_line(mode: tuple[str, ...], closed: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *PYTHON, "-c", WITHOUT_NULL, "up", *mode],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(),
        check=False,
    )
    expected = "" if closed else "postprox: cannot open /dev/null: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_missing_dev_null_causes_421_reply(spawn: Spawn) -> None:
    proxy = spawn(prelude=(*PYTHON, "-c", WITHOUT_NULL, "up:25"))
    proxy.client.sees_reply(b"421 4.3.0 ")
    proxy.client.sees_end()
    assert proxy.exit_status() == 1


# cli.errors


WRONG = [
    ((), "HOST:PORT is missing"),
    (("up:x",), "HOST:PORT 'up:x'"),
    (("up:25", "-t", "0"), "-t '0'"),
    (("up:25", "--nonsense"), "unknown option --nonsense"),
    (("up:25", "-l", "x"), "-l 'x'"),
    (("up:25", "--log", "x"), "--log 'x'"),
    (("up:25", "--log", "stderr"), "--log stderr requires"),
]


@pytest.mark.parametrize(("arguments", "named"), WRONG)
def test_invalid_command_line_is_reported_on_standard_error(
    arguments: tuple[str, ...], named: str
) -> None:
    done = subprocess.run(
        [*PYTHON, "-m", "postprox", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"postprox: {named}")
    assert "--help" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [arguments for arguments, _ in WRONG])
def test_invalid_command_line_sends_421_to_client(spawn: Spawn, arguments: tuple[str, ...]) -> None:
    proxy = spawn(*arguments)
    proxy.client.sees_reply(b"421 4.3.5 ")
    proxy.client.sees_end()
    assert proxy.exit_status() == 2


def test_invalid_session_command_line_leaves_standard_error_empty(
    spawn: Spawn, tmp_path: Path
) -> None:
    with (tmp_path / "stderr").open("wb") as stderr:
        proxy = spawn("--nonsense", stderr=stderr.fileno())
    assert proxy.exit_status() == 2
    assert (tmp_path / "stderr").read_bytes() == b""


def test_proxy_with_invalid_option_exits_if_client_has_disconnected(
    spawn: Spawn, tmp_path: Path
) -> None:
    waiting = ("/bin/sh", "-c", f'read -r go <{fifo(tmp_path / "gate")}; exec "$@"', "sh")
    with (tmp_path / "stderr").open("wb") as stderr:
        proxy = spawn("--nonsense", stderr=stderr.fileno(), prelude=waiting)
    proxy.client.leaves()
    (tmp_path / "gate").write_text("go\n")
    assert proxy.exit_status() == 2
    assert (tmp_path / "stderr").read_bytes() == b""


# cli.help, cli.license, cli.version


def told(option: str) -> str:
    done = subprocess.run(
        [*PYTHON, "-m", "postprox", option],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(),
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_option(option: str) -> None:
    text = told(option)
    for short, long in [
        ("-c", "--command"),
        ("-d", "--tempdir"),
        ("-t", "--timeout"),
        ("-r", "--reject"),
        ("-v", "--verbose"),
        ("-l", "--listen"),
        ("-h", "--help"),
        ("-L", "--license"),
        ("-V", "--version"),
    ]:
        assert re.search(rf"^ +{short}, {long}\b", text, re.MULTILINE)
    for long in ("--foreground", "--max-sessions"):
        assert re.search(rf"^ +{long}\b", text, re.MULTILINE)


@pytest.mark.parametrize("option", ["-L", "--license"])
def test_licence_option_prints_licence(option: str) -> None:
    assert "Artistic" in told(option)


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version_option_prints_database_backends(option: str) -> None:
    text = told(option)
    assert re.match(r"postprox \d+\.\d+", text)
    assert re.search(r"[Dd]atabase backends: none", text)


# The options file of the systemd unit


def errors_of_unit(file: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*PYTHON, "-m", "postprox", "-l", "1", "--foreground", *arguments],
        env={**os.environ, "POSTPROX_ENVIRONMENT_FILE": str(file)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_error_about_invalid_value_mentions_options_file(tmp_path: Path) -> None:
    file = tmp_path / "default"
    file.touch()
    assert errors_of_unit(file, "-t", "never", "up") == (
        "postprox: -t 'never': must be a positive number, such as 30 or 0.5 "
        f"(see {file} and postprox --help)\n"
    )


def test_error_about_missing_options_file_mentions_file(tmp_path: Path) -> None:
    assert errors_of_unit(tmp_path / "default") == (
        f"postprox: {tmp_path}/default: No such file or directory; the file must set "
        "POSTPROX_UPSTREAM and POSTPROX_OPTIONS\n"
    )


def test_assignment_in_place_of_upstream_address_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "default"
    file.touch()
    said = errors_of_unit(file, "-c", "/f", "POSTPROX_UPSTREAM=127.0.0.1:10026")
    assert "a host name cannot contain an equals sign" in said


# files.term


# Other signals that terminate a process by default.
OTHER_ENDS = [
    *(signal.SIGQUIT, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU),
    *(signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT, signal.SIGRTMIN, signal.SIGRTMAX),
]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *OTHER_ENDS])
def test_signal_terminates_filter_and_removes_files(
    spawn: Spawn, upstream: Upstream, spool: Path, tmp_path: Path, number: int
) -> None:
    started = fifo(tmp_path / "started")
    command = f"sleep 1000 & echo $! >{started}; wait"
    proxy = spawn("-c", command, "-d", str(spool), upstream.address)
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    child = int(started.read_text())
    assert len(list(spool.iterdir())) == 2
    proxy.process.send_signal(number)
    proxy.client.sees_reply(b"421 ")
    proxy.client.sees_end()
    peer.sees(b"QUIT")
    assert proxy.exit_status() == 1
    assert list(spool.iterdir()) == []
    wait_for_end(child)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_user_defined_signal_is_ignored(
    spawn: Spawn, upstream: Upstream, spool: Path, tmp_path: Path, number: int
) -> None:
    gate = fifo(tmp_path / "gate")
    proxy = spawn("-c", f"read -r go <{gate}", "-d", str(spool), upstream.address)
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    with gate.open("w") as opened:  # The filter is running.
        proxy.process.send_signal(number)
        opened.write("go\n")
    takes_message(proxy.client, peer, *MESSAGE)
    quits(proxy.client, peer)
    assert proxy.exit_status() == 0


def test_signal_during_data_ends_session_and_removes_files(
    spawn: Spawn, upstream: Upstream, spool: Path
) -> None:
    proxy = spawn("-c", "true", "-d", str(spool), upstream.address)
    peer = in_data(proxy.client, upstream)
    proxy.client.says(b"Subject: x")
    proxy.process.terminate()
    peer.sees(b"QUIT")
    assert proxy.exit_status() == 1
    assert list(spool.iterdir()) == []


def test_signal_before_upstream_greeting_causes_421_reply(spawn: Spawn, upstream: Upstream) -> None:
    proxy = spawn(upstream.address)
    upstream.accepts()
    proxy.process.terminate()
    proxy.client.sees_reply(b"421 ")
    assert proxy.exit_status() == 1


@pytest.mark.parametrize("blocked", [signal.SIGCHLD, signal.SIGTERM])
def test_initially_blocked_signals_are_unblocked(
    spawn: Spawn, upstream: Upstream, spool: Path, blocked: signal.Signals
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {blocked})
    try:
        proxy = spawn("-c", "exit 1", "-d", str(spool), upstream.address)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    proxy.client.sees_reply(b"554 ")
    proxy.process.terminate()
    assert proxy.exit_status() == 1


# filter.stdio


def test_failed_start_sends_nothing_to_client(spawn: Spawn, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "postprox", tmp_path / "postprox")
    (tmp_path / "postprox/core/options.py").write_text("raise KeyboardInterrupt\n")
    proxy = spawn("127.0.0.1:9", variables={"PYTHONPATH": str(tmp_path)})
    proxy.client.sees_end()
    assert proxy.exit_status() != 0


@pytest.fixture
def status_of_filter(
    spawn: Spawn, upstream: Upstream, spool: Path, tmp_path: Path
) -> Callable[[str], str]:
    """Return a function that runs a command as the filter and returns its output."""

    def ask(command: str) -> str:
        answer = fifo(tmp_path / "answer")
        reader, writer = os.pipe()
        proxy = spawn(
            *("-c", f"{{ {command}; }} >{answer}", "-d", str(spool), upstream.address),
            pass_fds=(reader, writer),
        )
        os.close(reader)
        os.close(writer)
        in_data(proxy.client, upstream)
        proxy.client.says(*MESSAGE)
        return answer.read_text()

    return ask


def test_filter_signals_have_default_dispositions(
    status_of_filter: Callable[[str], str],
) -> None:
    ignored = int(status_of_filter("grep ^SigIgn: /proc/self/status").split()[1], 16)
    # The C library reserves signals 32 and 33.
    assert ignored & ~(1 << 31 | 1 << 32) == 0


def test_filter_inherits_only_standard_descriptors(status_of_filter: Callable[[str], str]) -> None:
    # ls opens the directory that it lists.
    assert status_of_filter("ls /proc/self/fd").split() == ["0", "1", "2", "3"]


def test_filter_standard_input_is_empty(status_of_filter: Callable[[str], str]) -> None:
    assert status_of_filter("readlink /proc/self/fd/0; cat") == "/dev/null\n"


def test_filter_runs_in_separate_process_group(status_of_filter: Callable[[str], str]) -> None:
    pid, group = status_of_filter('echo "$$ $(cut -d" " -f5 /proc/$$/stat)"').split()
    assert pid == group


def test_filter_inherits_environment_except_filter_variables(
    spawn: Spawn, upstream: Upstream, spool: Path, tmp_path: Path
) -> None:
    answer = fifo(tmp_path / "answer")
    names = ("EMAIL", "OUTFILE", "SENDER", "RECIPIENT", "REMOTEIP", "HELO")
    proxy = spawn(
        *("-c", f"env -0 >{answer}", "-d", str(spool), upstream.address),
        variables={**dict.fromkeys(names, "stale"), "OTHER": "kept"},
    )
    in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    seen = dict(pair.split("=", 1) for pair in answer.read_text().split("\0") if pair)
    assert seen["OTHER"] == "kept"
    assert [seen[name] for name in names[2:]] == ["a@example", "b@example", "", "client"]
    assert "stale" not in seen.values()


# filter.reject-line, filter.timeout


def test_large_standard_error_output_does_not_delay_reply(
    spawn: Spawn, upstream: Upstream, spool: Path
) -> None:
    command = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo 550 no >&2; exit 1"
    proxy = spawn("-c", command, "-d", str(spool), upstream.address)
    in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    proxy.client.sees(b"550 no")


def test_background_process_with_open_standard_error_is_not_awaited(
    spawn: Spawn, upstream: Upstream, spool: Path, tmp_path: Path
) -> None:
    held = fifo(tmp_path / "held")
    command = f"{{ cat {held}; }} & echo 550 no >&2; exit 1"
    proxy = spawn("-c", command, "-d", str(spool), upstream.address)
    in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    proxy.client.sees(b"550 no")
    proxy.client.asks(b"QUIT", b"221 ")
    proxy.client.sees_end()
    held.write_text("go")


# data.spool-error


def test_missing_directory_causes_452_reply(
    spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    proxy = spawn("-d", str(tmp_path / "missing"), upstream.address)
    peer = in_transaction(proxy.client, upstream)
    proxy.client.asks(b"DATA", b"452 4.3.1 ")
    quits(proxy.client, peer)
    assert proxy.exit_status() == 0


def test_message_over_file_size_limit_causes_452_reply(
    spawn: Spawn, upstream: Upstream, spool: Path
) -> None:
    limiting = ("/bin/sh", "-c", 'ulimit -f 8; exec "$@"', "sh")
    proxy = spawn("-c", "true", "-d", str(spool), upstream.address, prelude=limiting)
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*([b"x" * 998] * 100), b".")
    proxy.client.sees_reply(b"452 4.3.1 ")
    peer.sees(b"QUIT")
    proxy.client.asks(b"QUIT", b"221 ")
    peer.leaves()
    assert proxy.exit_status() == 0
    assert list(spool.iterdir()) == []


def test_message_after_452_reply_is_delivered(
    spawn: Spawn, upstream: Upstream, spool: Path
) -> None:
    limiting = ("/bin/sh", "-c", 'ulimit -f 8; exec "$@"', "sh")
    proxy = spawn("-c", "true", "-d", str(spool), upstream.address, prelude=limiting)
    client = proxy.client
    in_data(client, upstream)
    client.says(*([b"x" * 998] * 100), b".")
    client.sees_reply(b"452 4.3.1 ")
    passes_next_message(client, upstream)


# Other Python implementations

_OTHER_PYTHON = (
    "import sys, types;"
    "ours = {**vars(sys.implementation), 'name': 'pypy'};"
    "sys.implementation = types.SimpleNamespace(**ours);"
    "from postprox.__main__ import main; sys.exit(main())"
)


def test_error_mentions_unsupported_python() -> None:
    done = subprocess.run(
        [*PYTHON, "-c", _OTHER_PYTHON, "127.0.0.1:25"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == (
        b"postprox: pypy is not supported; CPython is required (see postprox --help)\n"
    )


def test_unsupported_python_sends_421_to_client(spawn: Spawn) -> None:
    client = spawn("127.0.0.1:25", command=[*PYTHON, "-c", _OTHER_PYTHON]).client
    client.sees(replies.MISCONFIGURED.rstrip())
    client.sees_end()
