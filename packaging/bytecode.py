#!@python@ -ISB
"""Make the byte code of the postprox in the directory of this file: bytecode.py [PLACE]

PLACE is the final directory of the files, if it differs from their current directory. Run the
script again after an upgrade of Python, because byte code belongs to one version.

Rule: the script makes all byte code in a staging directory, runs trial sessions with it and writes
it to disk. Then it renames file after file. Until then the previous byte code remains.
"""

from __future__ import annotations

import _imp
import builtins
import errno
import marshal
import os
import py_compile
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn

#: The timeout of each end of a trial session, in seconds.
TIMEOUT = 10.0
PYC_HEADER = 16  # octets before the code (PEP 552)

#: The trial sessions: the commands of the client, and the codes of their replies.
QUIT_ONLY = (b"QUIT\r\n", [b"220", b"221"])
WITH_A_MESSAGE = (
    b"EHLO client\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\n.\r\nQUIT\r\n",
    [b"220", b"250", b"250", b"250", b"354", b"250", b"221"],
)
#: The replies of the upstream server other than 250, by the start of the line.
ANSWERS = {b"Subj": b"", b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}


def main(library: Path, place: Path) -> None:
    """Make the byte code for the current interpreter."""
    tag = str(sys.implementation.cache_tag)
    staged = library / f"{tag}.new"
    shutil.rmtree(staged, ignore_errors=True)
    compile_all(library, staged, place)
    source = (library / "loader.py").read_bytes()
    loader = compile(source, place / "loader.py", "exec", dont_inherit=True)
    first = modules_of_a_session(staged, QUIT_ONLY)
    message = modules_of_a_session(staged, WITH_A_MESSAGE)
    logged = modules_of_a_session(staged, WITH_A_MESSAGE, "-v")
    listening = [*logged, *modules_of_a_listener(staged)]
    modules = [(name, code_of(staged, name)) for name in first]
    later = [
        *(packed(staged, message, first), packed(staged, logged, message)),
        packed(staged, listening, logged),
    ]
    (staged / "session").write_bytes(checked(marshal.dumps((loader, modules, later))))
    flush(staged)
    replace(staged, library / tag)
    for old in library.glob("cpython-*"):
        if old.name != tag:
            shutil.rmtree(old)


def checked(packed: bytes) -> bytes:
    """Append the hash of `packed`, which launcher and command compare."""
    return packed + _imp.source_hash(int.from_bytes(MAGIC_NUMBER, "little"), packed)


def flush(directory: Path) -> None:
    """Write a file or a directory tree to disk, so that a power failure does not truncate it."""
    for path in (directory, *directory.rglob("*")):
        sync(path)


def sync(path: Path) -> None:
    """Write the content of a file or a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without fsync(2) for directories
            raise
    finally:
        os.close(descriptor)


def replace(staged: Path, place: Path) -> None:
    """Move the files of `staged` to `place` with rename(2), and remove other files there."""
    new = {path.relative_to(staged) for path in staged.rglob("*")}
    for name in sorted(new):
        if (staged / name).is_dir():
            (place / name).mkdir(parents=True, exist_ok=True)
        else:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).replace(place / name)
    for path in sorted(place.rglob("*"), reverse=True):
        if path.relative_to(place) not in new:
            path.rmdir() if path.is_dir() else path.unlink()
    shutil.rmtree(staged)
    flush(place)


def compile_all(library: Path, staged: Path, place: Path) -> None:
    """Compile the sources of the package, and copy its other files."""
    for path in library.glob("postprox/**/*.*"):
        name = path.relative_to(library)
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".py":
            compiled = (staged / name).with_suffix(".pyc")
            # No code uses docstrings or `assert`. Level 2 leaves both out.
            py_compile.compile(
                str(path), str(compiled), str(place / name), doraise=True, optimize=2
            )
            compiled.write_bytes(checked(compiled.read_bytes()))
        else:
            shutil.copy(path, staged / name)


def packed(staged: Path, names: list[str], known: list[str]) -> tuple[list[str], bytes]:
    """Return the `names` that are not `known`, and their code, for `loader.Later`."""
    new = [name for name in names if name not in known]
    return new, marshal.dumps([(name, code_of(staged, name)) for name in new])


def code_of(staged: Path, name: str) -> CodeType:
    """Return the code of the module `name`."""
    path = staged / name.replace(".", "/")
    compiled = path / "__init__.pyc" if path.is_dir() else path.with_suffix(".pyc")
    code: CodeType = marshal.loads(compiled.read_bytes()[PYC_HEADER:])
    return code


def modules_of_a_session(
    staged: Path, trial: tuple[bytes, list[bytes]], *options: str
) -> list[str]:
    """Run a trial session, and return the names of the postprox modules that it has imported.

    The order is that of completed imports, so that no module needs a later one.
    """
    client, proxy = socket.socketpair()
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="postprox-") as directory, client:
        upstream = f"{directory}/upstream"
        arguments = [*options, "-c", "true", "-d", directory, f"unix:{upstream}"]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(upstream)
            listener.listen()
            child = os.fork()
            if child == 0:
                _be_the_proxy(staged, proxy.detach(), writer, arguments)
            proxy.close()
            os.close(writer)
            client.sendall(trial[0])
            # The pipe ends with the proxy, so a proxy that fails at the start causes no timeout.
            if listener.fileno() in select.select([listener.fileno(), reader], [], [], TIMEOUT)[0]:
                _answer(listener)
        replies = _received(client).splitlines()
        with os.fdopen(reader) as names:
            modules = names.read().split()
        os.waitpid(child, 0)
    if [reply[:3] for reply in replies] != trial[1]:
        raise SystemExit(f"bytecode: a trial session was answered {replies}")
    return modules


def modules_of_a_listener(staged: Path) -> list[str]:
    """Return the names of the postprox modules that a server imports, in the same order."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import postprox.shell.listen, postprox.shell.stderr;"
        "print(*(name for name in sys.modules if name.partition('.')[0] == 'postprox'))"
    )
    command = [sys.executable, "-ISBc", program, str(staged)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def _be_the_proxy(staged: Path, client: int, report: int, arguments: list[str]) -> NoReturn:
    complaints = os.dup(2)

    def leave(status: int) -> NoReturn:
        """Report the imported modules and end the process."""
        names = [name for name in sys.modules if name.partition(".")[0] == "postprox"]
        os.write(report, "\n".join(names).encode())
        os.kill(os.getpid(), 9)
        raise AssertionError(status)

    imported = builtins.__import__

    def import_quietly(*names: Any) -> ModuleType:
        """Import a module, and disconnect the log, because a trial is not mail."""
        module = imported(*names)
        if log := sys.modules.get("postprox.shell.log"):
            vars(log)["_SOCKET"] = "/nonexistent"
        return module

    try:
        builtins.__import__ = import_quietly  # type: ignore[assignment]
        os.dup2(client, 0)
        os.dup2(client, 1)
        os.close(client)
        sys.path.insert(0, str(staged))
        sys.argv[1:] = arguments
        sys.modules["posix"]._exit = leave  # type: ignore[attr-defined]
        from postprox.__main__ import main as proxy

        proxy()
    except BaseException:
        os.write(complaints, traceback.format_exc().encode())
    os.kill(os.getpid(), 9)
    raise AssertionError


def _answer(listener: socket.socket) -> None:
    """Run the upstream server of a trial session."""
    upstream, _ = listener.accept()
    upstream.settimeout(TIMEOUT)
    with upstream, upstream.makefile("rb") as lines:
        upstream.sendall(b"220 upstream\r\n")
        for line in lines:
            upstream.sendall(ANSWERS.get(line[:4], b"250 ok\r\n"))


def _received(client: socket.socket) -> bytes:
    """Return all replies until the connection ends, also after an error."""
    client.settimeout(TIMEOUT)
    received = b""
    try:
        while block := client.recv(4096):
            received += block
    except OSError:
        pass
    return received


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    main(here, Path(*sys.argv[1:]) if sys.argv[1:] else here)
