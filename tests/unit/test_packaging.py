"""Tests of the installer `packaging/install`, the Debian package and the systemd units.

Tests that change no files share one installation. Every user can read it, because the proxy runs as
a different user than the installer.
"""

from __future__ import annotations

import _imp
import configparser
import fcntl
import marshal
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import pytest

from postprox import __version__
from postprox.check import environment
from postprox.check import unit as unit_of_check
from postprox.core import options, replies
from tests.postfix.devlog import DevLog, may_unshare
from tests.support.fixtures import Serve, Spawn
from tests.support.peers import listening
from tests.support.proxies import Serving, Spawned
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

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
#: The path of the interpreter outside any virtual environment.
PYTHON = str(Path(sys.executable).resolve())
OTHER_USER = "nobody"
SERVICE = "postprox.service"
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
LIMIT = 30.0


def install(*arguments: object, under: str = "/bin/sh") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*under.split(), PACKAGING / "install", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def open_directory() -> Iterator[Path]:
    """Yield a directory that, unlike pytest's directories, every user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="postprox-install-"))
    try:
        directory.chmod(0o755)
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def place() -> Iterator[Path]:
    yield from open_directory()


@pytest.fixture(scope="module")
def prefix() -> Iterator[Path]:
    """Yield the prefix of an installation that tests do not change."""
    for directory in open_directory():
        done = install("--prefix", directory, "--python", PYTHON)
        assert done.returncode == 0, done.stderr
        yield directory


def copy_installation(prefix: Path, place: Path) -> None:
    """Copy an installation to another prefix. This is ten times as fast as the installer."""
    shutil.copytree(prefix, place, symlinks=True, dirs_exist_ok=True)
    listed = version(place) / "installed"
    listed.write_text(listed.read_text().replace(f"{prefix}/", f"{place}/"))
    for name in listed.read_text().split():
        path = Path(name)
        path.write_text(path.read_text().replace(f"{prefix}/", f"{place}/"))


@pytest.fixture
def own(prefix: Path, place: Path) -> Path:
    """Return the prefix of an installation that the test can change."""
    copy_installation(prefix, place)
    return place


@pytest.fixture(scope="module")
def launcher(prefix: Path) -> Path:
    return prefix / "sbin/postprox"


def others_python() -> str:
    """Return an interpreter that the other user can run. PYTHON may be in a private directory."""
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (PYTHON, "/usr/bin/python3"):
        try:
            subprocess.run([python, "-I", "-S", "-c", check], user=OTHER_USER, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip(f"no suitable interpreter can be run by {OTHER_USER}")


def assert_serves(*command: str, user: str | None = None) -> None:
    """Check that a proxy relays a session of EHLO and QUIT."""
    with listening() as listener:
        upstream = Upstream(listener)
        proxy = Spawned(upstream.address, command=command, stderr=2, user=user)
        try:
            quits(proxy.client, greeted(proxy.client, upstream))
            assert proxy.exit_status() == 0
        finally:
            proxy.closes()
            upstream.closes()


def passes_message(proxy: Spawned, upstream: Upstream) -> None:
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    takes_message(proxy.client, peer, *MESSAGE)
    quits(proxy.client, peer)
    assert proxy.exit_status() == 0


def test_installed_command_prints_version(launcher: Path) -> None:
    printed = subprocess.run([launcher, "--version"], capture_output=True, text=True, check=True)
    assert printed.stdout.startswith(f"postprox {__version__}\n")


def test_installed_command_runs_session(launcher: Path) -> None:
    assert_serves(str(launcher))


@pytest.mark.skipif(os.geteuid() != 0, reason="an empty /dev requires root")
def test_missing_dev_null_causes_only_421_reply(spawn: Spawn, launcher: Path) -> None:
    started = f"mount -t tmpfs none /dev && exec {launcher} 127.0.0.1:1"
    client = spawn(command=["/usr/bin/unshare", "--mount", "sh", "-c", started]).client
    client.sees(replies.INTERNAL_ERROR.rstrip())
    client.sees_end()


def test_session_with_message_needs_only_bytecode_bundle(
    spawn: Spawn, own: Path, upstream: Upstream
) -> None:
    library = own / "lib/postprox"
    shutil.rmtree(library / "postprox")
    shutil.rmtree(library / sys.implementation.cache_tag / "postprox")
    arguments = ["-v", "-c", "true", "-d", f"{own}", upstream.address]
    passes_message(spawn(*arguments, command=[f"{own}/sbin/postprox"], stderr=2), upstream)


def test_traceback_has_file_and_line(prefix: Path, launcher: Path, tmp_path: Path) -> None:
    load = launcher.read_text().removesuffix("sys.exit(main())\n")
    program = tmp_path / "program"
    program.write_text(f"{load}from postprox.core import smtp\nsmtp.verb(None)\n")
    failed = subprocess.run([PYTHON, "-IS", program], capture_output=True, text=True, check=False)
    source = (prefix / "lib/postprox/postprox/core/smtp.py").resolve()
    *_, where, line, _ = [line for line in failed.stderr.splitlines() if "^" not in line]
    numbered = dict(enumerate(source.read_text().splitlines(), 1))
    number = next(n for n, text in numbered.items() if text.strip() == line.strip())
    assert where == f'  File "{source}", line {number}, in verb'


def test_failed_start_sends_nothing_to_client(spawn: Spawn, own: Path) -> None:
    shutil.rmtree((own / "lib/postprox").resolve())
    proxy = spawn("127.0.0.1:9", command=[f"{own}/sbin/postprox"])
    assert proxy.exit_status() == 1
    proxy.client.sees_end()


def test_failed_start_is_reported_on_standard_error(own: Path) -> None:
    shutil.rmtree((own / "lib/postprox").resolve())
    started = subprocess.run(
        [f"{own}/sbin/postprox", "--version"], capture_output=True, text=True, check=False
    )
    assert "No module named 'postprox'" in started.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="running a command as another user requires root")
def test_installed_command_runs_session_as_another_user(place: Path) -> None:
    done = install("--prefix", place, "--python", others_python())
    assert done.returncode == 0, done.stderr
    assert_serves(f"{place}/sbin/postprox", user=OTHER_USER)


def test_launcher_isolates_interpreter(launcher: Path) -> None:
    assert launcher.read_text().splitlines()[0] == f"#!{PYTHON} -ISB"


def test_every_module_has_bytecode(prefix: Path) -> None:
    library = (prefix / "lib/postprox").resolve()
    byte_code = library / sys.implementation.cache_tag
    sources = [path.relative_to(library) for path in (library / "postprox").rglob("*.py")]
    assert sources
    assert [name for name in sources if not (byte_code / name).with_suffix(".pyc").exists()] == []


def test_bytecode_contains_no_docstrings(prefix: Path) -> None:
    _, modules, _ = marshal.loads(bundle(prefix).read_bytes()[:-8])  # noqa: S302
    texts = [text for _, code in modules for text in code.co_consts if isinstance(text, str)]
    assert texts
    assert [text for text in texts if "Rule:" in text] == []


@pytest.mark.parametrize("name", ["check", "rehearse"])
def test_command_loads_bytecode_without_source(prefix: Path, name: str) -> None:
    command = [PYTHON, "-I", "-v", f"{prefix}/bin/postprox-{name}", "--version"]
    traced = subprocess.run(command, capture_output=True, text=True, check=True)
    library = (prefix / "lib/postprox").resolve()
    ours = [line for line in traced.stderr.splitlines() if str(library) in line]
    assert ours
    assert [line for line in ours if f"{library}/postprox/" in line] == []


def test_sources_are_used_if_bytecode_is_missing(own: Path) -> None:
    shutil.rmtree(own / "lib/postprox" / sys.implementation.cache_tag)
    assert_serves(f"{own}/sbin/postprox")


def bytecode(library: Path) -> subprocess.CompletedProcess[str]:
    """Compile the byte code again, as after a Python upgrade."""
    command = [f"{library}/bytecode.py"]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_bytecode_for_new_python_replaces_old_bytecode(own: Path) -> None:
    library = own / "lib/postprox"
    tag = str(sys.implementation.cache_tag)
    (library / tag).rename(library / "cpython-309")
    assert bytecode(library).returncode == 0
    assert [path.name for path in library.glob("cpython*")] == [tag]
    assert_serves(f"{own}/sbin/postprox")


def test_unusable_bytecode_does_not_replace_old_bytecode(own: Path) -> None:
    library = own / "lib/postprox"
    before = (library / str(sys.implementation.cache_tag) / "session").stat()
    (library / "postprox/core/session.py").write_text("raise SystemExit\n")
    assert "a trial session was answered []" in bytecode(library).stderr
    after = (library / str(sys.implementation.cache_tag) / "session").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def bundle(prefix: Path) -> Path:
    return prefix / "lib/postprox" / str(sys.implementation.cache_tag) / "session"


def hashed(value: Any) -> bytes:
    """Return a bundle that contains a value and its valid hash."""
    packed = marshal.dumps(value)
    return packed + _imp.source_hash(int.from_bytes(MAGIC_NUMBER, "little"), packed)


FAILS = compile("raise ValueError('no module')", "postprox/core/smtp.py", "exec")


def failing_after(whole: bytes, number: int) -> bytes:
    """Return the bundle with a failing module after the first `number` modules."""
    loader, modules, later = marshal.loads(whole[:-8])  # noqa: S302
    return hashed((loader, [*modules[:number], ("postprox.core.smtp", FAILS)], later))


def with_groups(whole: bytes, change: Callable[[list[str], bytes], bytes]) -> bytes:
    """Return the bundle after `change` has modified each group of modules for later loading."""
    loader, modules, later = marshal.loads(whole[:-8])  # noqa: S302
    return hashed((loader, modules, [(names, change(names, code)) for names, code in later]))


def ending_with_a_failure(_: list[str], code: bytes) -> bytes:
    *modules, (last, _) = marshal.loads(code)  # noqa: S302
    return marshal.dumps([*modules, (last, FAILS)])


#: Functions that corrupt a bundle's content.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "valid-hash-of-a-number": lambda _: hashed(5),
    "valid-hash-of-numbers": lambda _: hashed((1, 2, 3)),
    "valid-hash-of-nothing": lambda _: hashed((compile("", "", "exec"), [], [])),
    "valid-hash-of-a-loader-that-fails": lambda _: hashed((FAILS, [], [])),
    "valid-hash-without-main": lambda whole: failing_after(whole, 1),
    "valid-hash-of-a-module-that-fails": lambda whole: failing_after(whole, 8),
    "valid-hash-without-groups": lambda whole: with_groups(whole, lambda *_: b""),
    "valid-hash-of-groups-that-fail": lambda whole: with_groups(whole, ending_with_a_failure),
    "undamaged": lambda whole: whole,
    "empty": lambda _: b"",
    "one-octet": lambda whole: whole[:1],
    "seven-octets": lambda whole: whole[:7],
    "a-quarter": lambda whole: whole[: len(whole) // 4],
    "half": lambda whole: whole[: len(whole) // 2],
    "without-hash": lambda whole: whole[:-8],
    "without-last-octet": lambda whole: whole[:-1],
    "appended-zeros": lambda whole: whole + bytes(4096),
    "zeros": lambda whole: bytes(len(whole)),
    "a-page-of-zeros": lambda whole: whole[:8192] + bytes(4096) + whole[12288:],
    "one-bit": lambda whole: whole[:50_000] + bytes([whole[50_000] ^ 1]) + whole[50_001:],
    "garbage": lambda whole: (bytes(range(256)) * 1000)[: len(whole)],
    "text": lambda _: b"hello\n",
    "another-value": lambda _: marshal.dumps(["something", 7]),
    "another-tuple": lambda _: marshal.dumps((compile("", "", "exec"), [], [])),
    "another-hash": lambda _: marshal.dumps((compile("", "", "exec"), [], [])) + bytes(8),
}


@pytest.fixture(scope="module")
def damaged(prefix: Path) -> Iterator[Path]:
    """Yield the prefix of an installation whose bundle the tests replace."""
    for directory in open_directory():
        copy_installation(prefix, directory)
        whole = bundle(directory).read_bytes()
        bundle(directory).with_name("whole").write_bytes(whole)
        yield directory


def damage(prefix: Path, how: str) -> None:
    bundle(prefix).unlink()
    whole = bundle(prefix).with_name("whole").read_bytes()
    bundle(prefix).write_bytes(DAMAGES[how](whole))


@pytest.mark.parametrize("how", DAMAGES)
def test_corrupt_bytecode_falls_back_to_sources(damaged: Path, how: str) -> None:
    damage(damaged, how)
    assert_serves(f"{damaged}/sbin/postprox")


@pytest.mark.parametrize(
    "how", ["empty", "half", "valid-hash-without-groups", "valid-hash-of-groups-that-fail"]
)
def test_session_with_corrupt_bytecode_filters_message(
    spawn: Spawn, damaged: Path, how: str, upstream: Upstream, tmp_path: Path
) -> None:
    damage(damaged, how)
    arguments = ["-c", "true", "-d", str(tmp_path), upstream.address]
    passes_message(spawn(*arguments, command=[f"{damaged}/sbin/postprox"]), upstream)


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")],
    ids=["directory", "FIFO", "device"],
)
def test_sources_are_used_if_bytecode_is_not_regular_file(
    place: Path, damaged: Path, make: Callable[[Path], None]
) -> None:
    copy = place / "lib/postprox"
    shutil.copytree((damaged / "lib/postprox").resolve(), copy)
    bundle(place).unlink()
    make(bundle(place))
    launcher = place / "launcher"
    launcher.write_text((damaged / "sbin/postprox").read_text().replace(str(damaged), str(place)))
    launcher.chmod(0o755)
    assert_serves(str(launcher))


def put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


#: Functions that corrupt a module's byte code file.
CUTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "ten octets": lambda path: path.write_bytes(path.read_bytes()[:10]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "missing": Path.unlink,
    "FIFO": put_fifo,
}


@pytest.mark.parametrize("how", CUTS)
def test_commands_with_corrupt_bytecode_run_from_sources(
    prefix: Path, place: Path, how: str
) -> None:
    """Each corrupt file contains one module that is imported late."""
    library = place / "lib/postprox"
    shutil.copytree((prefix / "lib/postprox").resolve(), library)
    byte_code = library / str(sys.implementation.cache_tag) / "postprox"
    for name in ("help_text", "core/session", "check/report", "rehearse/summary"):
        assert (byte_code / f"{name}.pyc").exists()
        CUTS[how](byte_code / f"{name}.pyc")
    for words in (
        ("sbin/postprox", "--help"),
        ("bin/postprox-check", "--help"),
        ("bin/postprox-rehearse", "-c", "exit 1"),
    ):
        program = place / "program"
        program.write_text((prefix / words[0]).read_text().replace(str(prefix), str(place)))
        command = [PYTHON, "-I", program, *words[1:]]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout


def test_sources_are_used_if_bytecode_has_different_magic_number(own: Path) -> None:
    """Pre-releases of Python share a cache tag, but have different magic numbers."""
    launcher = own / "sbin/postprox"
    text = launcher.read_text()
    assert "import MAGIC_NUMBER\n" in text
    launcher.write_text(
        text.replace("import MAGIC_NUMBER\n", "import MAGIC_NUMBER as _\nMAGIC_NUMBER = b'1234'\n")
    )
    assert_serves(str(launcher))


@pytest.mark.skipif(os.getuid() != 0, reason="running a command as another user requires root")
def test_unreadable_bytecode_falls_back_to_sources(place: Path) -> None:
    install("--prefix", place, "--python", others_python())
    (code,) = place.glob("lib/postprox/*/session")
    code.chmod(0o600)
    assert_serves(f"{place}/sbin/postprox", user=OTHER_USER)


@pytest.mark.parametrize("call", ["open", "fstat", "read"])
def test_proxy_runs_from_source_if_bytecode_cannot_be_read(
    damaged: Path, tmp_path: Path, call: str
) -> None:
    damage(damaged, "undamaged")
    broken = (
        f"real = posix.{call}\n"
        "def fail(*arguments):\n"
        f"    posix.{call} = real\n"
        "    raise OSError(5, 'Input/output error')\n"
        f"posix.{call} = fail\n"
    )
    head, imports, rest = (damaged / "sbin/postprox").read_text().partition("import _imp\n")
    program = tmp_path / "program"
    program.write_text(f"{head}{imports}{broken}{rest}")
    assert rest
    assert_serves(PYTHON, "-ISB", str(program))


@pytest.mark.skipif(not may_unshare(), reason="a private /dev/log requires a mount namespace")
@pytest.mark.parametrize("how", ["empty", "half"])
def test_corrupt_bytecode_is_logged_only_to_syslog(
    spawn: Spawn, damaged: Path, how: str, upstream: Upstream, tmp_path: Path
) -> None:
    damage(damaged, how)
    log = DevLog(tmp_path / "dev")
    command = [f"{damaged}/sbin/postprox"]
    proxy = spawn(upstream.address, command=command, prelude=log.private_dev())
    quits(proxy.client, greeted(proxy.client, upstream))
    assert proxy.exit_status() == 0
    log.close()
    (line,) = log.lines
    size = bundle(damaged).stat().st_size
    assert line.startswith("<20>")  # facility mail, warning
    assert line.endswith(
        "no usable byte code, sources compiled instead: "
        f"{bundle(damaged).resolve()}: damaged, {size} octets"
    )


def assert_server_serves(server: Serving, upstream: Upstream) -> None:
    client = server.client()
    quits(client, greeted(client, upstream))
    server.stop()
    assert server.exit_status() == 0


def test_server_with_corrupt_bytecode_delivers_message(
    serve: Serve, damaged: Path, upstream: Upstream
) -> None:
    damage(damaged, "half")
    server = serve(upstream.address, command=[f"{damaged}/sbin/postprox"])
    assert_server_serves(server, upstream)


def test_server_needs_only_bytecode_bundle(serve: Serve, own: Path, upstream: Upstream) -> None:
    shutil.rmtree(own / "lib/postprox/postprox")
    shutil.rmtree(own / "lib/postprox" / str(sys.implementation.cache_tag) / "postprox")
    assert_server_serves(serve(upstream.address, command=[f"{own}/sbin/postprox"]), upstream)


def version(prefix: Path) -> Path:
    return (prefix / "lib/postprox").resolve()


def versions(prefix: Path) -> set[Path]:
    return set((prefix / "lib/postprox-versions").resolve().iterdir())


def test_upgrade_keeps_only_current_and_previous_version(own: Path) -> None:
    installed = [version(own)]
    for _ in range(2):
        install("--prefix", own, "--python", PYTHON)
        installed.append(version(own))
    assert versions(own) == set(installed[1:])


def test_running_session_uses_old_version_during_upgrade(
    spawn: Spawn, own: Path, upstream: Upstream
) -> None:
    """Without byte code, a session imports some sources only when it receives a message."""
    shutil.rmtree(own / "lib/postprox" / str(sys.implementation.cache_tag))
    proxy = spawn("-d", str(own), upstream.address, command=[f"{own}/sbin/postprox"])
    client = proxy.client
    peer = greeted(client, upstream)
    before = version(own)
    install("--prefix", own, "--python", PYTHON)
    assert version(own) != before
    shutil.rmtree(version(own))  # Later imports from the new version would fail.
    relays(client, peer, b"EHLO client")
    begins_message(client, peer)
    client.says(*MESSAGE)
    takes_message(client, peer, *MESSAGE)
    quits(client, peer)
    assert proxy.exit_status() == 0


def test_sessions_succeed_during_repeated_installation(own: Path) -> None:
    installing = [
        threading.Thread(target=install, args=("--prefix", own, "--python", PYTHON))
        for _ in range(4)
    ]
    sessions = 0
    for thread in installing:
        thread.start()
        while thread.is_alive():
            assert_serves(f"{own}/sbin/postprox")
            sessions += 1
        thread.join()
    assert sessions >= len(installing)


#: The launcher of an installation without version directories.
OLD_LAUNCHER = """\
#!{python} -ISB
import marshal, sys
library = "{library}"
byte_code = f"{{library}}/{{sys.implementation.cache_tag}}"
sys.path[:0] = byte_code, library
with open(f"{{byte_code}}/session", "rb") as file:
    loader, modules, later = marshal.loads(file.read())
exec(loader)
load(modules, byte_code, library)
sys.meta_path[:0] = [Later(*group, byte_code, library) for group in later]
from postprox.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def unversioned(own: Path) -> Path:
    """Return the prefix of an old installation without version directories."""
    library, current = own / "lib/postprox", version(own)
    library.unlink()
    current.rename(library)
    (own / "lib/postprox-versions").rmdir()
    launcher = own / "sbin/postprox"
    launcher.write_text(OLD_LAUNCHER.format(python=PYTHON, library=library))
    return own


def test_replacing_unversioned_installation_keeps_sessions(
    unversioned: Path,
) -> None:
    thread = threading.Thread(target=install, args=("--prefix", unversioned, "--python", PYTHON))
    thread.start()
    while thread.is_alive():
        assert_serves(f"{unversioned}/sbin/postprox")
    assert (unversioned / "lib/postprox").is_symlink()
    assert_serves(f"{unversioned}/sbin/postprox")
    assert {path.name for path in (unversioned / "lib").iterdir()} == {
        *("postprox", "postprox-versions", "systemd")
    }


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_old_library_directory_is_atomically_exchanged_for_link(unversioned: Path) -> None:
    trace = unversioned / "trace"
    command = f"strace -f -e trace=rename,renameat,renameat2 -o {trace} /bin/sh"
    done = install("--prefix", unversioned, "--python", PYTHON, under=command)
    assert done.returncode == 0, done.stderr
    library = 'lib/postprox"'
    (call,) = (line for line in trace.read_text().splitlines() if library in line)
    assert "RENAME_EXCHANGE) = 0" in call


def test_old_launcher_runs_new_version(unversioned: Path) -> None:
    """An upgrade replaces the library before the launcher."""
    old = (unversioned / "sbin/postprox").read_text()
    install("--prefix", unversioned, "--python", PYTHON)
    (unversioned / "sbin/postprox").write_text(old)
    assert_serves(f"{unversioned}/sbin/postprox")


def test_unversioned_installation_can_be_uninstalled(unversioned: Path) -> None:
    assert install("--prefix", unversioned, "--uninstall").returncode == 0
    assert [path for path in unversioned.rglob("*") if not path.is_dir()] == []


def test_installation_removes_incomplete_earlier_version(own: Path) -> None:
    unfinished = own / "lib/postprox-versions/1.0.0.broken"
    unfinished.mkdir()
    install("--prefix", own, "--python", PYTHON)
    assert not unfinished.exists()


def test_failed_installation_leaves_files_unchanged(own: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    (own / "share/man/man1").rename(own / "share/man/elsewhere")
    (
        own / "share/man/man1"
    ).touch()  # Manual pages cannot be installed below a path that is a file.
    assert install("--prefix", own, "--python", PYTHON).returncode == 1
    (own / "share/man/man1").unlink()
    (own / "share/man/elsewhere").rename(own / "share/man/man1")
    after = {path: path.lstat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    assert before == after


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_files_are_synced_before_rename(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    command = f"strace -f -y -e trace=fsync,rename,renameat,renameat2 -o {trace} /bin/sh"
    done = install("--prefix", tmp_path / "to", "--python", PYTHON, under=command)
    assert done.returncode == 0, done.stderr
    calls = [line.partition(" ")[2] for line in trace.read_text().splitlines()]
    switched = next(
        n for n, call in enumerate(calls) if 'postprox.new"' in call and "sbin" not in call
    )
    synced = {
        call.partition("<")[2].partition(">")[0] for call in calls[:switched] if "fsync" in call
    }
    current = version(tmp_path / "to")
    assert {path for path in (current, *current.rglob("*")) if str(path) not in synced} == set()
    launched = next(n for n, call in enumerate(calls) if 'sbin/postprox.new"' in call)
    assert any("fsync" in call and "sbin/postprox.new" in call for call in calls[:launched])


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "bash", "mksh", "busybox sh"])
def test_installer_runs_in_any_shell(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell.split(maxsplit=1)[0]) is None:
        pytest.skip(f"{shell} is not installed")
    arguments = ("--prefix", tmp_path)
    done = install(*arguments, "--python", PYTHON, under=f"/usr/bin/env {shell}")
    assert (done.returncode, done.stderr) == (0, "")
    assert_serves(f"{tmp_path}/sbin/postprox")
    gone = install(*arguments, "--uninstall", under=f"/usr/bin/env {shell}")
    assert (gone.returncode, gone.stderr) == (0, "")


def test_error_mentions_unsupported_python_implementation(tmp_path: Path) -> None:
    other = tmp_path / "pypy3"
    patched = "import sys, types; sys.implementation = types.SimpleNamespace(name='pypy')"
    other.write_text(f'#!/bin/sh\nexec {PYTHON} -ISc "{patched}\n$4"\n')
    other.chmod(0o755)
    done = install("--prefix", tmp_path / "new", "--python", other)
    assert (done.returncode, done.stdout) == (1, "")
    problem = f"--python {other}: this is pypy, but postprox requires CPython"
    assert done.stderr == f"install: {problem}\n"
    assert not (tmp_path / "new").exists()


def test_installed_files_are_not_world_writable(prefix: Path) -> None:
    installed = [path for place in ("lib", "sbin") for path in (prefix / place).rglob("*")]
    assert [path for path in installed if path.stat().st_mode & 0o022] == []


def test_installed_files_are_world_readable(prefix: Path) -> None:
    installed = [path for place in ("lib", "sbin") for path in (prefix / place).rglob("*")]
    assert [path for path in installed if not path.stat().st_mode & 0o004] == []


def test_reinstallation_removes_stale_files(own: Path) -> None:
    stale = own / "lib/postprox/postprox/stale.py"
    stale.touch()
    assert install("--prefix", own, "--python", PYTHON).returncode == 0
    assert not stale.exists()


def test_upgrade_preserves_edited_options_file(own: Path) -> None:
    file = own / "etc/default/postprox"
    file.write_text("POSTPROX_UPSTREAM=192.0.2.1\n")
    assert install("--prefix", own, "--python", PYTHON).returncode == 0
    assert file.read_text() == "POSTPROX_UPSTREAM=192.0.2.1\n"


def test_upgrade_replaces_unedited_options_file(own: Path) -> None:
    file = own / "etc/default/postprox"
    for old in (file, own / "lib/postprox/default"):
        old.write_text("# of an earlier version\n")
    assert install("--prefix", own, "--python", PYTHON).returncode == 0
    assert file.read_text() == (PACKAGING / "postprox.default").read_text()


def test_uninstallation_preserves_edited_options_file(own: Path) -> None:
    file = own / "etc/default/postprox"
    file.write_text("POSTPROX_UPSTREAM=192.0.2.1\n")
    removed = install("--prefix", own, "--uninstall")
    assert f"kept {file}, because it was edited\n" in removed.stdout
    assert [path for path in own.rglob("*") if not path.is_dir()] == [file]


def test_uninstallation_preserves_preexisting_options_file(own: Path) -> None:
    (own / "lib/postprox/default").unlink()  # The options file already existed.
    install("--prefix", own, "--python", PYTHON)
    install("--prefix", own, "--uninstall")
    assert (own / "etc/default/postprox").exists()


def test_installed_units_contain_paths_under_prefix(prefix: Path) -> None:
    units = prefix / "lib/systemd/system"
    text = (units / "postprox.service").read_text()
    assert f"ExecStart={prefix}/sbin/postprox " in text
    assert f"EnvironmentFile=-{prefix}/etc/default/postprox\n" in text
    assert (units / "postprox@.service").read_text() == text


def test_files_of_another_installation_are_not_replaced(tmp_path: Path) -> None:
    packaged = tmp_path / "lib/postprox/loader.py"
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    done = install("--prefix", tmp_path, "--python", PYTHON)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"install: {tmp_path}/lib/postprox belongs to another installation, such as a package; "
        "remove it first\n"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [packaged]


@pytest.mark.skipif(shutil.which("flock") is None, reason="util-linux is not installed")
def test_concurrent_installation_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    other = os.open(tmp_path / "lib", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        done = install("--prefix", tmp_path, "--python", PYTHON)
    finally:
        os.close(other)
    assert (done.returncode, done.stderr) == (
        *(1, f"install: another installation into {tmp_path} is in progress\n"),
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_installation_leaves_no_unexpected_files(prefix: Path, own: Path) -> None:
    install("--prefix", own, "--python", PYTHON)
    for directory in (prefix, own):
        assert {str(path.relative_to(directory)) for path in directory.glob("*/*")} == {
            *("lib/postprox", "lib/postprox-versions", "sbin/postprox", "share/man", "share/doc"),
            *("bin/postprox-check", "bin/postprox-rehearse", "lib/systemd", "etc/default"),
        }


def test_uninstall_option_removes_all_files(own: Path) -> None:
    done = install("--prefix", own, "--uninstall")
    assert (done.returncode, done.stdout) == (0, f"removed postprox from {own}\n")
    left = ["bin", "lib", "sbin", "share", "share/man", "share/man/man1"]
    assert sorted(str(path.relative_to(own)) for path in own.rglob("*")) == left


def test_uninstallation_removes_files_left_by_killed_upgrade(own: Path) -> None:
    for path in [path for path in own.rglob("*") if path.is_file()]:
        if "postprox-versions" not in path.parts:
            path.with_name(f"{path.name}.new").touch()
    (own / "bin/postprox-later.new").touch()
    (own / "lib/postprox.new").symlink_to("postprox-versions/killed")
    (own / "lib/postprox.old").mkdir()
    assert install("--prefix", own, "--uninstall").returncode == 0
    assert [path for path in own.rglob("*") if not path.is_dir() or "postprox" in path.name] == []


def test_uninstallation_removes_files_of_killed_first_installation(own: Path) -> None:
    (own / "lib/postprox").unlink()
    (own / "sbin/postprox").rename(own / "sbin/postprox.new")
    done = install("--prefix", own, "--uninstall")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (own / "lib/postprox-versions").exists()
    assert not (own / "sbin/postprox.new").exists()


def test_unrelated_file_in_versions_directory_survives_upgrade(own: Path) -> None:
    other = own / "lib/postprox-versions/NOTES"
    other.touch()
    link = other.with_name("link")
    link.symlink_to("/nonexistent")
    done = install("--prefix", own, "--python", PYTHON)
    assert (done.returncode, done.stderr) == (0, "")
    assert other.exists()
    assert link.is_symlink()


def test_uninstallation_fails_if_nothing_is_installed(tmp_path: Path) -> None:
    done = install("--prefix", tmp_path, "--uninstall")
    assert (done.returncode, done.stderr) == (
        *(1, f"install: postprox is not installed in {tmp_path}/lib/postprox\n"),
    )


def test_rehearsal_command_is_installed(prefix: Path) -> None:
    command = [f"{prefix}/bin/postprox-rehearse", "-c", "exit 1"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    assert "3 rejected" in shown.stdout


def test_every_command_has_manual_page(prefix: Path) -> None:
    commands = {path.name for place in ("bin", "sbin") for path in (prefix / place).iterdir()}
    assert {path.stem for path in (prefix / "share/man/man1").iterdir()} == commands


def test_manual_page_has_installed_paths(prefix: Path) -> None:
    page = (prefix / "share/man/man1/postprox.1").read_text()
    assert f"\n.Pa {prefix}/etc/default/postprox\n" in page
    assert "/usr/local/sbin" not in page


def test_recipe_contains_installed_command_path(prefix: Path) -> None:
    installed = prefix / "share/doc/postprox/examples/postfix"
    source = PACKAGING.parent / "examples/postfix"
    assert {path.name for path in installed.iterdir()} == {path.name for path in source.iterdir()}
    for path in installed.iterdir():
        printed = (source / path.name).read_text()
        assert path.read_text() == printed.replace("/usr/local/sbin/", f"{prefix}/sbin/")


def test_recipe_file_named_in_manual_page_is_installed(prefix: Path) -> None:
    page = (prefix / "share/man/man1/postprox.1").read_text()
    named = re.findall(r"^cat (\S+)", page, re.MULTILINE)
    assert named
    assert [name for name in named if not Path(name).is_file()] == []


def test_uninstallation_removes_document_directories(own: Path) -> None:
    install("--prefix", own, "--uninstall")
    assert not (own / "share/doc/postprox").exists()


def test_destdir_does_not_appear_in_installed_files(tmp_path: Path) -> None:
    done = install("--destdir", tmp_path, "--prefix", "/opt/postprox", "--python", PYTHON)
    assert done.returncode == 0, done.stderr
    written = [path for path in (tmp_path / "opt").rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if bytes(tmp_path) in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--prefix", "relative"], "--prefix 'relative': must be an absolute path"),
        (["--prefix", "/with space"], "--prefix '/with space': may contain only letters, digits"),
        (["--python", "python3"], "--python 'python3': must be an absolute path"),
        (["--prefix"], "--prefix requires a value"),
        (["--frob"], "unexpected argument '--frob'"),
    ],
)
def test_invalid_argument_is_reported(arguments: list[str], complaint: str) -> None:
    done = install(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_missing_interpreter_is_reported(tmp_path: Path) -> None:
    done = install("--prefix", tmp_path, "--python", tmp_path / "python3")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"--python {tmp_path}/python3: no such program" in done.stderr


def test_outdated_interpreter_is_reported_with_version(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\ncase $4 in *print*) echo 3.9 ;; *) exit 1 ;; esac\n")
    old.chmod(0o755)
    done = install("--prefix", tmp_path / "new", "--python", old)
    assert done.returncode == 1
    assert f"--python {old}: this is Python 3.9, but postprox requires 3.11 or later" in done.stderr
    assert not (tmp_path / "new").exists()


def test_prefix_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = install("--prefix", tmp_path / "file", "--python", PYTHON)
    assert done.returncode == 1
    assert f"{tmp_path}/file/lib cannot be created; run this script as root" in done.stderr


def test_packaging_page_lists_all_build_requirements() -> None:
    (needs,) = re.findall(r'^needs="(.*)"$', (PACKAGING / "deb").read_text(), re.MULTILINE)
    assert f"\n    apt-get install --no-install-recommends {needs}\n" in (
        PACKAGING / "README.md"
    ).read_text(encoding="utf-8")


def test_package_build_reports_missing_requirements(tmp_path: Path) -> None:
    for name in ("dirname", "dpkg-buildpackage", "dh", "git"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/true")
    done = subprocess.run(
        ["/bin/sh", PACKAGING / "deb"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("deb: lintian is missing: apt-get install ")


def test_debian_package_has_current_version() -> None:
    changelog = (PACKAGING.parent / "debian/changelog").read_text()
    assert changelog.startswith(f"postprox ({__version__}) ")


@pytest.fixture(scope="module")
def documents() -> Iterator[Path]:
    """Yield a directory with the documents of the package."""
    for directory in open_directory():
        shutil.copytree(ROOT / "examples", directory / "examples")
        shutil.copy(ROOT / "debian/README.Debian", directory)
        shutil.copy(ROOT / "debian/copyright", directory)
        subprocess.run([PYTHON, "-IB", PACKAGING / "documents.py", directory], check=True)
        yield directory


def texts(documents: Path) -> dict[str, str]:
    """Return the documents and examples of the package by file name."""
    return {path.name: path.read_text() for path in documents.rglob("*.*") if path.is_file()}


def test_links_in_package_documents_exist(documents: Path) -> None:
    links = [
        (page, link)
        for page in documents.rglob("*.md")
        for link in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text())
    ]
    assert len(links) > 20
    assert [(page.name, link) for page, link in links if not (page.parent / link).is_file()] == []


def test_anchors_in_package_documents_match_headings(documents: Path) -> None:
    for page in documents.rglob("*.md"):
        for file, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#([^)]+)\)", page.read_text()):
            target = page.parent / file if file else page
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            plain = [re.sub(r"[^\w -]", "", heading.lower()) for heading in headings]
            assert anchor in [heading.replace(" ", "-") for heading in plain], (page.name, anchor)


@pytest.mark.parametrize(
    "name",
    [
        *("amavis.md", "check.md", "faq.md", "filters.md", "growing.md", "log.md", "monitoring.md"),
        *("opendkim.md", "operating.md", "postfix.md", "rspamd.md", "setup.md"),
        "troubleshooting.md",
    ],
)
def test_package_contains_administrator_pages(documents: Path, name: str) -> None:
    assert (documents / "docs" / name).is_file()


def test_package_documents_have_no_local_paths(documents: Path) -> None:
    """Only the administrator's filter is in /usr/local/bin."""
    ours = re.compile(
        r"/usr/local/(?!bin/(?!postprox)).*|.*packaging/.*|.*/etc/systemd/.*\.socket$"
    )
    for name, text in texts(documents).items():
        assert ours.findall(text) == [], name


def test_packaged_readme_uses_path_of_packaged_proxy(documents: Path) -> None:
    text = (documents / "README.md").read_text()
    assert len(re.findall(r"argv=/usr/sbin/postprox ", text)) == text.count("argv=")
    assert "/etc/default/postprox" in text


def test_files_mentioned_in_readme_debian_are_packaged(documents: Path) -> None:
    text = (documents / "README.Debian").read_text()
    for name in re.findall(r"/usr/share/doc/postprox/(\S+[\w])", text):
        assert (documents / name).exists(), name


@pytest.mark.parametrize(
    "setting", ["PrivateTmp", "ProtectSystem", "ProtectHome", "NoNewPrivileges", "StateDirectory"]
)
def test_readme_debian_lists_unit_restrictions(setting: str) -> None:
    assert setting in unit("postprox.service")["Service"]
    assert setting in (ROOT / "debian/README.Debian").read_text()


def test_service_has_state_directory() -> None:
    service = unit("postprox.service")["Service"]
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == ("postprox", "0700")


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read(PACKAGING / name)
    return parser


def service_arguments() -> tuple[str, ...]:
    """Return the arguments of the packaged unit with the packaged options."""
    files = {"/etc/default/postprox": (PACKAGING / "postprox.default").read_text()}
    text = (PACKAGING / "postprox.service").read_text()
    return unit_of_check.parse("postprox.service", [text], files).words[1:]


def test_service_command_line_is_valid() -> None:
    wanted = options.parse(service_arguments())
    assert wanted.foreground
    assert wanted.strict


def test_postprox_check_accepts_all_packaged_options() -> None:
    text = (PACKAGING / "postprox.default").read_text()
    assert environment.parse(text) == environment.Assignments(
        values=environment.PACKAGED, likely=environment.PACKAGED, has_comments=True
    )


def test_service_unit_and_socket_unit_have_same_address() -> None:
    arguments = service_arguments()
    host, port = options.parse(arguments).listen or ("", 0)
    assert unit("postprox.socket")["Socket"]["ListenStream"] == f"{host}:{port}"


def test_service_stop_does_not_kill_running_filter() -> None:
    assert unit("postprox.service")["Service"]["KillMode"] == "mixed"


def test_socket_instances_can_share_port() -> None:
    shared, single = unit("postprox@.socket")["Socket"], unit("postprox.socket")["Socket"]
    assert dict(shared) == {**single, "reuseport": "yes"}


@pytest.fixture
def units(prefix: Path, tmp_path: Path) -> Path:
    """Return a directory with the installed units and an instance of the template."""
    for source, name in [
        *(("postprox.service", "postprox.service"), ("postprox.socket", "postprox.socket")),
        *(("postprox.service", "postprox@1.service"), ("postprox@.socket", "postprox@1.socket")),
    ]:
        text = (PACKAGING / source).read_text().replace("/usr/local", str(prefix))
        (tmp_path / name).write_text(text)
    return tmp_path


def systemd_analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(SYSTEMD_ANALYZE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd is not installed")
def test_systemd_accepts_installed_units(units: Path) -> None:
    verified = systemd_analyze("verify", "--man=no", *units.glob("postprox*"))
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd is not installed")
def test_service_is_sandboxed(units: Path) -> None:
    judged = systemd_analyze("security", "--offline=yes", "--threshold=19", units / SERVICE)
    assert judged.returncode == 0, judged.stdout.splitlines()[-1]
