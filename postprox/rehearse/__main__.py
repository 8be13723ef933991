"""The command `python3 -m postprox.rehearse`.

Rule: what was begun is ended and cleared away here, also on Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import mail, options
from .document import document
from .rehearsal import CannotRunError, Rehearsal, rehearse
from .text import Report, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the command; return its exit status."""
    settings = options.parse(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        _run(settings)
    except CannotRunError as error:
        print(f"rehearse: {printable(str(error))}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt as stop:
        print("rehearse: interrupted", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    return 0


def _interrupt(number: int, _: object) -> NoReturn:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # the clearing away is not to be interrupted
    raise KeyboardInterrupt(number)


def _run(settings: options.Settings) -> None:
    mails = _read(settings.messages)
    if settings.json:
        print(document(settings, list(_rehearsals(mails, settings))))
        return
    report = Report(settings, colour=_takes_colour())
    print(report.opening(), flush=True)
    done = []
    for rehearsal in _rehearsals(mails, settings):
        done.append(rehearsal)
        print(report.message(len(done), rehearsal), flush=True)
    print(report.closing(done))


def _read(paths: tuple[Path, ...]) -> list[mail.Mail]:
    mails = []
    wrong = []
    for path in paths:
        try:
            mails.append(mail.read(path))
        except OSError as error:
            wrong.append(f"cannot read the message {str(path)!r}: {error.strerror}")
    if wrong:
        raise CannotRunError("; ".join(wrong))
    return mails


def _rehearsals(mails: list[mail.Mail], settings: options.Settings) -> Iterator[Rehearsal]:
    try:
        directory = Path(tempfile.mkdtemp(prefix="rehearse-"))
    except OSError as error:
        raise CannotRunError(f"no temporary directory: {error}") from None
    try:
        for number, message in enumerate(mails, 1):
            (directory / str(number)).mkdir()
            yield rehearse(message, settings, directory / str(number))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _takes_colour() -> bool:
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and not dumb


if __name__ == "__main__":
    sys.exit(main())
