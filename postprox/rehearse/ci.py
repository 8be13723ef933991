"""Results for machines that build and test: GitHub's annotations, JUnit's XML.

Rule: both say the same of each message, namely what `summary.complaint` does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .errors import CannotRunError
from .summary import complaint

if TYPE_CHECKING:
    from pathlib import Path

    from .options import Settings
    from .summary import Result


def github_lines(settings: Settings, results: list[Result]) -> list[str]:
    """Return one workflow command of GitHub for each message that was not right."""
    lines = []
    for done in results:
        why = complaint(settings, done)
        if why:
            file = f"file={_escaped(done.path, ':,')}," if done.path else ""
            lines.append(f"::error {file}title=postprox-rehearse::{_escaped(done.name)}: {why}")
    return lines


def _escaped(text: str, more: str = "") -> str:
    """Escape a text as GitHub has it: percent signs and line ends, in a property also `more`."""
    return "".join(
        f"%{ord(character):02X}" if character in "%\r\n" + more else character for character in text
    )


def write_junit(path: Path, settings: Settings, results: list[Result]) -> None:
    """Write JUnit's XML, whole or not at all.

    Raises:
        CannotRunError: it cannot be written.
    """
    wrong = [why for done in results if (why := complaint(settings, done))]
    suite = ElementTree.Element(
        "testsuite",
        name="postprox-rehearse",
        tests=str(len(results)),
        failures=str(len(wrong)),
        time=f"{sum(done.seconds or 0.0 for done in results):.3f}",
    )
    for done in results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=_printable(settings.command),
            name=_printable(done.name),
            time=f"{done.seconds or 0.0:.3f}",
        )
        why = complaint(settings, done)
        if why:
            ElementTree.SubElement(case, "failure", message=_printable(why), type=done.verdict)
        if done.stderr:
            ElementTree.SubElement(case, "system-err").text = done.stderr
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        ElementTree.ElementTree(suite).write(temporary, encoding="utf-8", xml_declaration=True)
        temporary.replace(path)
    except OSError as error:
        raise CannotRunError(f"cannot write {str(path)!r}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _printable(text: str) -> str:
    """Return `text` without what XML cannot hold."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
