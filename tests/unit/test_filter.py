"""Tests of the filter process: start, inherited resources, standard error and exit."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postprox.core.verdict import Outcome
from postprox.shell.filter import Filter, _changeable_signals
from postprox.shell.system import posix


def exit_code(running: Filter) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1])


def run(command: str, **environment: bytes) -> Outcome:
    """Run a filter until it exits, as the loop does, and return its outcome."""
    variables = {name.encode(): value for name, value in environment.items()}
    running = Filter(command, {b"PATH": os.environb[b"PATH"], **variables})
    child = os.pidfd_open(running.pid)
    while True:
        ready, _, _ = select.select([child, running.stderr], [], [], 20)
        assert ready
        if running.stderr in ready and running.read_stderr() == b"":
            break
        if child in ready:
            break
    os.close(child)
    outcome = running.outcome(exit_code(running))
    running.close()
    return outcome


@pytest.mark.parametrize("status", [0, 1, 2, 126, 255])
def test_exit_status_is_returned(status: int) -> None:
    assert run(f"exit {status}").status == status


@pytest.mark.parametrize("number", [1, 9, 11, 13, 15])
def test_termination_by_signal_is_reported(number: int) -> None:
    outcome = run(f"kill -{number} $$")
    assert (outcome.status, outcome.failure) == (None, f"killed by signal {number}")


def test_missing_command_results_in_exit_status_127() -> None:
    assert run("/nonexistent/program 2>/dev/null").status == 127


def test_last_line_of_standard_error_is_returned() -> None:
    assert run("echo first >&2; echo 550 no >&2; exit 1").last_stderr_line == b"550 no"


def test_standard_error_without_newline_is_returned() -> None:
    assert run("printf '550 no' >&2; exit 1").last_stderr_line == b"550 no"


def test_standard_error_of_killed_filter_is_returned() -> None:
    assert run("echo 550 no >&2; kill -9 $$").last_stderr_line == b"550 no"


def test_large_standard_error_output_does_not_block_filter() -> None:
    outcome = run("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo 550 no >&2; exit 1")
    assert (outcome.status, outcome.last_stderr_line) == (1, b"550 no")


def test_environment_is_passed_unchanged(tmp_path: Path) -> None:
    run(f'env -0 >"{tmp_path}/env"', SENDER=b"caf\xe9 a", HELO=b"")
    variables = set((tmp_path / "env").read_bytes().split(b"\0"))
    assert {b"SENDER=caf\xe9 a", b"HELO="} <= variables
    assert not any(variable.startswith(b"HOME=") for variable in variables)


def test_standard_input_is_empty(tmp_path: Path) -> None:
    run(f'readlink /proc/self/fd/0 >"{tmp_path}/stdin"; cat')
    assert (tmp_path / "stdin").read_text() == "/dev/null\n"


def test_standard_output_is_dev_null(tmp_path: Path) -> None:
    run(f'link=$(readlink /proc/$$/fd/1); echo "$link" >"{tmp_path}/stdout"')
    assert (tmp_path / "stdout").read_text() == "/dev/null\n"


@pytest.fixture
def inheritable() -> Iterator[int]:
    """Yield an inheritable descriptor, like one that the proxy could have inherited."""
    ours, theirs = socket.socketpair()
    descriptor = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD, 50)
    os.set_inheritable(descriptor, True)
    with ours, theirs:
        yield descriptor
    os.close(descriptor)


def test_filter_inherits_only_standard_descriptors(
    tmp_path: Path, inheritable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Filter, "_descriptors_are_private", False)
    run(f'ls /proc/self/fd >"{tmp_path}/fds"')
    # ls opens the directory that it lists.
    assert (tmp_path / "fds").read_text().split() == ["0", "1", "2", "3"]


@pytest.fixture
def _the_first_and_the_last_ignored() -> Iterator[None]:
    numbers = (signal.SIGHUP, signal.SIGRTMAX)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("_the_first_and_the_last_ignored")
def test_signals_have_default_dispositions(tmp_path: Path) -> None:
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, (
        "the test requires that SIGPIPE is ignored"
    )
    run(f'cat /proc/self/status >"{tmp_path}/status"')
    status = (tmp_path / "status").read_text()
    masks = dict(re.findall(r"^(Sig(?:Blk|Ign|Cgt)):\s+([0-9a-f]+)$", status, re.MULTILINE))
    # The C library reserves signals 32 and 33.
    libc = 1 << 31 | 1 << 32
    assert {name: int(mask, 16) & ~libc for name, mask in masks.items()} == {
        "SigBlk": 0,
        "SigIgn": 0,
        "SigCgt": 0,
    }


def test_only_valid_signals_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    # musl also reserves signal 34.
    valid = signal.valid_signals() - {34}
    monkeypatch.setattr("_signal.valid_signals", lambda: valid)
    assert set(_changeable_signals()) == valid - {signal.SIGKILL, signal.SIGSTOP}


def test_blocked_signals_are_not_inherited(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        run(f'grep SigBlk /proc/self/status >"{tmp_path}/status"')
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert int((tmp_path / "status").read_text().split()[1], 16) == 0


def test_filter_runs_in_separate_process_group(tmp_path: Path) -> None:
    run(f'echo $$ $(ps -o pgid= -p $$ || cut -d" " -f5 /proc/$$/stat) >"{tmp_path}/ids"')
    pid, group = (tmp_path / "ids").read_text().split()
    assert pid == group
    assert int(group) != os.getpgrp()


def test_kill_reaches_children(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    running = Filter(f"sleep 1000 & echo $! >{started}; wait", {b"PATH": os.environb[b"PATH"]})
    child = os.pidfd_open(int(started.read_text()))
    running.kill()
    assert select.select([child], [], [], 20)[0] == [child]
    os.close(child)
    assert exit_code(running) == -signal.SIGKILL
    running.close()


def test_killing_exited_filter_has_no_effect() -> None:
    running = Filter("exit 0", {})
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    running.kill()
    assert os.waitpid(running.pid, 0)[1] == 0
    running.close()


def test_background_process_does_not_delay_outcome(tmp_path: Path) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    running = Filter(f"{{ cat {held}; }} & echo 550 no >&2; exit 1", {b"PATH": b"/bin:/usr/bin"})
    outcome = running.outcome(exit_code(running))
    assert outcome.last_stderr_line == b"550 no"
    running.close()
    held.write_text("go")


def test_failed_filter_start_leaves_no_open_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postprox.shell.filter.SHELL", "/nonexistent/sh")
    before = os.listdir("/dev/fd")  # noqa: PTH208 - only names are needed
    with pytest.raises(FileNotFoundError):
        Filter("true", {})
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_oversized_environment_raises_oserror() -> None:
    with pytest.raises(OSError, match="too long"):
        Filter("true", {b"X": b"x" * 1_000_000})


def test_kill_reaches_filter_that_left_its_process_group() -> None:
    leaves = "os.setpgid(0, os.getpgid(os.getppid()))"
    program = f"import os, time; {leaves}; print(flush=True); time.sleep(1000)"
    running = Filter(f"exec {sys.executable} -IS -c '{program}' >&2", dict(os.environb))
    assert select.select([running.stderr], [], [], 20)[0]
    running.kill()
    assert exit_code(running) == -signal.SIGKILL
    running.close()


def test_environment_entry_without_name_is_omitted() -> None:
    assert run("exit 3", **{"": b"x"}).status == 3


def test_close_error_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    right = posix.close

    def close(descriptor: int) -> None:
        right(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(posix, "close", close)
        running = Filter("exit 3", {})
    assert running.outcome(exit_code(running)).status == 3
    running.close()


def script(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_plain_command_is_child_of_proxy(tmp_path: Path) -> None:
    parent = script(tmp_path / "parent", "#!/bin/sh\necho $PPID >&2\n")
    assert run(str(parent)).last_stderr_line == str(os.getpid()).encode()


def test_plain_command_receives_its_arguments(tmp_path: Path) -> None:
    words = script(tmp_path / "words", '#!/bin/sh\necho "$0 $# $*" >&2\n')
    expected = f"{words} 3 a b@c,d --x:50%+".encode()
    assert run(f"{words} a b@c,d --x:50%+").last_stderr_line == expected


def test_first_word_of_plain_command_is_program() -> None:
    assert run("/bin/true /bin/false").status == 0


@pytest.mark.parametrize(
    "arguments",
    ["a  b", "a ", "~", "x=~", "$HOME", "a;true", "*", "'a b'", "a\tb", "#a", "a\\b", "{a,b}"],
)
def test_complex_command_is_run_by_shell(tmp_path: Path, arguments: str) -> None:
    words = script(tmp_path / "words", '#!/bin/sh\nprintf "<%s>" "$@" >&2\n')
    command = f"{words} {arguments}"
    variables = {"PATH": os.environ["PATH"], "HOME": "/home/of/filter"}
    by_shell = subprocess.run(
        ["/bin/sh", "-c", command], env=variables, stderr=subprocess.PIPE, check=False
    )
    assert run(command, HOME=b"/home/of/filter").last_stderr_line == by_shell.stderr


@pytest.mark.parametrize(
    ("name", "text", "mode", "status"),
    [
        ("missing", None, 0, 127),
        ("closed", "#!/bin/sh\n", 0o644, 126),
        ("no-interpreter", "#!/nonexistent/sh\n", 0o755, 127),
        ("carriage-return", "#!/bin/sh\r\nexit 0\r\n", 0o755, 127),
        ("no-first-line", "exit 3\n", 0o755, 3),
        ("empty", "", 0o755, 0),
    ],
)
def test_plain_command_is_run_by_shell_if_exec_fails(
    tmp_path: Path, name: str, text: str | None, mode: int, status: int
) -> None:
    path = tmp_path / name
    if text is not None:
        script(path, text, mode)
    outcome = run(str(path))
    assert outcome.status == status
    if status in (126, 127):
        assert outcome.last_stderr_line.startswith(f"sh: 1: {path}: ".encode())


def test_directory_as_plain_command_results_in_exit_status_126(tmp_path: Path) -> None:
    assert run(str(tmp_path)).status == 126


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.E2BIG, errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE]
)
def test_shell_does_not_retry_command_after_resource_error(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    started: list[str] = []

    def refuse(path: str, *_: object, **__: object) -> int:
        started.append(path)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(posix, "posix_spawn", refuse)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        Filter("/bin/true", {})
    assert started == ["/bin/true"]


@pytest.mark.parametrize("inherited", [None, b"", b"/nonexistent", b"."])
def test_plain_command_runs_in_working_directory(tmp_path: Path, inherited: bytes | None) -> None:
    show = script(tmp_path / "show.py", f"#!{sys.executable} -IS\n{SHOW_DIRECTORY}")
    variables = {} if inherited is None else {"PWD": inherited}
    assert run(str(show), **variables).last_stderr_line == os.fsencode(Path.cwd())


def test_valid_inherited_pwd_variable_is_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = script(tmp_path / "show.py", f"#!{sys.executable} -IS\n{SHOW_DIRECTORY}")
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    link = os.fsencode(tmp_path / "link")
    assert run(str(show), PWD=link).last_stderr_line == link


SHOW_DIRECTORY = "import os, sys; sys.stderr.write(os.environ['PWD'])\n"


def test_plain_command_leads_its_process_group(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getpgrp() == os.getpid(), file=sys.stderr)"
    show = script(tmp_path / "show.py", f"#!{sys.executable} -IS\n{program}\n")
    assert run(str(show)).last_stderr_line == b"True"


def test_plain_command_killed_by_signal_is_reported(tmp_path: Path) -> None:
    killed = script(tmp_path / "killed", "#!/bin/sh\nkill -TERM $$\n")
    assert run(str(killed)).failure == "killed by signal 15"
