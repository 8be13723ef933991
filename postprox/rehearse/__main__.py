"""The command `postprox-rehearse`, or `python3 -m postprox.rehearse`.

Rule: this module terminates its child processes and removes its files, even on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import github, junit, mail, options, sources, target, watch
from .document import document
from .errors import CannotRunError
from .progress import Progress
from .rehearsal import Rehearsal, not_rehearsed, rehearse
from .summary import Result, Summary, complaint, result
from .text import Paper, Report, printable, without_commands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from .mail import Mail
    from .options import Settings
    from .sources import Source

FAILED = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The minimum number of messages for a brief report, unless --full or --brief is given.
_MANY = 11
#: The width of the output if standard output is not a terminal, and the maximum width on a
#: terminal.
_WIDTH, _WIDEST = 80, 132
_NARROWEST = 60


class _OutputError(Exception):
    """Standard output cannot be written to."""


def main() -> int:
    """Run the command and return its exit status."""
    closed = sys.stdout is None
    _open_closed_streams()
    try:
        status = _main()
        if closed:
            _complain("standard output is closed")
            status = FAILED
        _flush()
    except CannotRunError as error:
        _complain(str(error))
        status = FAILED
    except MemoryError:
        _complain("not enough memory")
        status = FAILED
    except _OutputError as error:
        _discard(sys.stdout)
        if error.args:
            _complain(f"cannot write to standard output: {error}")
        status = FAILED
    except KeyboardInterrupt as stop:
        _print_error("rehearse: interrupted")
        status = 128 + (stop.args[0] if stop.args else signal.SIGINT)
        with contextlib.suppress(_OutputError):
            _flush()
    return status


def _main() -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        settings = options.parse(sys.argv[1:])
    except SystemExit as leaving:
        _flush()
        return int(leaving.code or 0)
    if settings.watch:
        _watch(settings)
    return _run(settings)


def _open_closed_streams() -> None:
    """Open /dev/null for each closed standard stream, so that no other file gets its descriptor."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(file, True)
    os.close(file)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115


def _print(text: str) -> None:
    """Print text to standard output.

    Raises:
        _OutputError: standard output cannot be written to.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise _OutputError from None  # The reader has closed the pipe, which is not an error.
    except OSError as error:
        raise _OutputError(error.strerror) from None


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise _OutputError from None
    except OSError as error:
        raise _OutputError(error.strerror) from None


def _discard(stream: TextIO) -> None:
    """Redirect a stream to /dev/null, so that the interpreter's flush at exit cannot fail."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_error(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def _interrupt(number: int, _: object) -> NoReturn:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # A second signal must not interrupt the cleanup.
    raise KeyboardInterrupt(number)


def _complain(why: str) -> None:
    # GitHub also searches standard error for workflow commands.
    _print_error(without_commands(f"rehearse: {printable(why)}"))


def _watch(settings: Settings) -> NoReturn:
    """Rehearse all messages, and repeat this after each change to the filter or a message.

    The function runs until a signal arrives.
    """
    shown = without_commands if settings.github else str
    while True:
        before = watch.state(settings)
        try:
            _run(settings)
        except CannotRunError as error:
            _complain(str(error))  # An editor may have removed the file temporarily.
        _print("\nWaiting for the filter or a message to change (press Ctrl-C to stop) ...")
        name = watch.changed(settings, before)
        _print(shown(f"\n{time.strftime('%H:%M:%S')}  {printable(name)} has changed.\n"))


def _run(settings: Settings) -> int:
    """Rehearse all messages once and return the exit status."""
    each = sources.found(settings.messages, settings.user)
    results = _document(settings, each) if settings.json else _text(settings, each)
    if settings.github:
        for line in github.lines(settings, results):
            _print(line)
    if settings.junit is not None:
        target.write(settings.junit, junit.document(settings, results))
    wrong = settings.expected and any(complaint(settings, done) for done in results)
    return FAILED if wrong or any(done.could_not_run for done in results) else 0


def _document(settings: Settings, each: list[Source]) -> list[Result]:
    rehearsals = []
    results = []
    for source, rehearsal in _rehearsals(each, settings, _paper().width):
        rehearsals.append(rehearsal)
        results.append(result(rehearsal, _path(source)))
    _print(document(settings, rehearsals, results))
    return results


def _text(settings: Settings, each: list[Source]) -> list[Result]:
    paper = _paper()
    total = len(each) * settings.repeat
    report = Report(settings, total, paper)
    full = total < _MANY if settings.full is None else settings.full
    shown = without_commands if settings.github else str
    _print(shown(report.opening()))
    if not full:
        _print("")
    results: list[Result] = []
    for source, rehearsal in _rehearsals(each, settings, paper.width):
        results.append(result(rehearsal, _path(source)))
        text = report.message if full else report.line
        _print(shown(text(len(results), rehearsal)))
    _print(shown(Summary(settings, paper).text(results)))
    return results


def _path(source: Source) -> str:
    return "" if source.path is None else str(source.path)


def _rehearsals(
    each: list[Source], settings: Settings, width: int
) -> Iterator[tuple[Source, Rehearsal]]:
    """Yield each message and its rehearsal, as many times as --repeat specifies.

    A list of all rehearsals could exceed the available memory.
    """
    progress = Progress(len(each) * settings.repeat, width)
    todo = (source for source in each for _ in range(settings.repeat))
    with _directory() as parent:
        if settings.user is not None:
            parent.chmod(0o711)  # The filter's user needs access to the subdirectories.
        for number, source in enumerate(todo, 1):
            directory = parent / str(number)
            progress.begins(number, source.name)
            try:
                done = rehearse(_message(source), settings, directory, progress)
            except CannotRunError as error:
                progress.ends()
                _complain(str(error))
                done = not_rehearsed(source.name, str(error))
            finally:
                progress.ends()
            yield source, done
            _remove(directory)


def _message(source: Source) -> Mail:
    try:
        return mail.from_octets(source.name, source.read())
    except OSError as error:
        why = error.strerror
    except MemoryError:
        why = "too large for the available memory"
    raise CannotRunError(f"cannot read the message {source.name!r}: {why}")


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    try:
        directory = Path(tempfile.mkdtemp(prefix="rehearse-"))
    except OSError as error:
        raise CannotRunError(f"no temporary directory: {error}") from None
    try:
        yield directory
    finally:
        _remove(directory)


def _remove(directory: Path) -> None:
    try:
        shutil.rmtree(directory, ignore_errors=True)
    except RecursionError:
        # A filter may nest directories more deeply than Python's recursion limit allows.
        subprocess.run(["/bin/rm", "-rf", "--", str(directory)], check=False)


def _paper() -> Paper:
    if not sys.stdout.isatty():
        return Paper(_WIDTH, colour=False)
    width = shutil.get_terminal_size((_WIDTH, 24)).columns
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    colour = not os.environ.get("NO_COLOR") and not dumb
    return Paper(min(max(width, _NARROWEST), _WIDEST), colour)


if __name__ == "__main__":
    sys.exit(main())
