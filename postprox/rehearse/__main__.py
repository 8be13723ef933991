"""The command `postprox-rehearse`, or `python3 -m postprox.rehearse`.

Rule: what was begun is ended and cleared away here, also on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import ci, mail, options, sources, watch
from .document import document
from .errors import CannotRunError
from .progress import Progress
from .rehearsal import Rehearsal, not_rehearsed, rehearse
from .summary import Result, Summary, complaint, result
from .text import Paper, Report, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .mail import Mail
    from .options import Settings
    from .sources import Source

FAILED = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: From so many messages on each gets a line, unless --full or --brief says otherwise.
_MANY = 11
#: The width of what is no terminal, and the widest of what is one.
_WIDTH, _WIDEST = 80, 132
_NARROWEST = 60


def main() -> int:
    """Run the command; return its exit status."""
    settings = options.parse(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        if settings.watch:
            _watch(settings)
        return _run(settings)
    except CannotRunError as error:
        _complain(str(error))
        return FAILED
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt as stop:
        print("rehearse: interrupted", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


def _interrupt(number: int, _: object) -> NoReturn:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # the clearing away is not to be interrupted
    raise KeyboardInterrupt(number)


def _complain(why: str) -> None:
    print(f"rehearse: {printable(why)}", file=sys.stderr)


def _watch(settings: Settings) -> NoReturn:
    """Run again and again; only a signal ends it."""
    while True:
        before = watch.state(settings)
        try:
            _run(settings)
        except CannotRunError as error:
            _complain(str(error))  # the file may be being written
        print("\nWaiting until the filter or a message changes (Ctrl-C ends) ...", flush=True)
        name = watch.changed(settings, before)
        print(f"\n{time.strftime('%H:%M:%S')}  {printable(name)} has changed.\n", flush=True)


def _run(settings: Settings) -> int:
    """Rehearse all messages once; return the exit status."""
    each = sources.found(settings.messages, settings.user)
    todo = [source for source in each for _ in range(settings.repeat)]
    results = _document(settings, todo) if settings.json else _text(settings, todo)
    if settings.github:
        for line in ci.github_lines(settings, results):
            print(line, flush=True)
    if settings.junit is not None:
        ci.write_junit(settings.junit, settings, results)
    wrong = settings.expected and any(complaint(settings, done) for done in results)
    return FAILED if wrong or any(done.could_not_run for done in results) else 0


def _document(settings: Settings, todo: list[Source]) -> list[Result]:
    rehearsals = []
    results = []
    for source, rehearsal in _rehearsals(todo, settings, Progress(len(todo), _paper().width)):
        rehearsals.append(rehearsal)
        results.append(result(rehearsal, _path(source)))
    print(document(settings, rehearsals, results))
    return results


def _text(settings: Settings, todo: list[Source]) -> list[Result]:
    paper = _paper()
    report = Report(settings, len(todo), paper)
    full = len(todo) < _MANY if settings.full is None else settings.full
    shown = ci.without_commands if settings.github else str
    print(shown(report.opening()), flush=True)
    if not full:
        print()
    results: list[Result] = []
    for source, rehearsal in _rehearsals(todo, settings, Progress(len(todo), paper.width)):
        results.append(result(rehearsal, _path(source)))
        said = report.message if full else report.line
        print(shown(said(len(results), rehearsal)), flush=True)
    print(shown(Summary(settings, paper).text(results)), flush=True)
    return results


def _path(source: Source) -> str:
    return "" if source.path is None else str(source.path)


def _rehearsals(
    todo: list[Source], settings: Settings, progress: Progress
) -> Iterator[tuple[Source, Rehearsal]]:
    with _directory() as parent:
        if settings.user is not None:
            parent.chmod(0o711)  # to be passed through
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
            shutil.rmtree(directory, ignore_errors=True)


def _message(source: Source) -> Mail:
    try:
        return mail.from_octets(source.name, source.read())
    except OSError as error:
        why = error.strerror
    except MemoryError:
        why = "too large for the memory"
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
        shutil.rmtree(directory, ignore_errors=True)


def _paper() -> Paper:
    if not sys.stdout.isatty():
        return Paper(_WIDTH, colour=False)
    width = shutil.get_terminal_size((_WIDTH, 24)).columns
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    colour = not os.environ.get("NO_COLOR") and not dumb
    return Paper(min(max(width, _NARROWEST), _WIDEST), colour)


if __name__ == "__main__":
    sys.exit(main())
