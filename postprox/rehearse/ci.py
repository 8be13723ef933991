"""Results for machines that build and test: GitHub's annotations, JUnit's XML.

Rule: both say the same of each message, namely what `summary.complaint` does.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .errors import CannotRunError
from .summary import complaint
from .text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from .options import Settings
    from .summary import Result


#: The beginning of a workflow command: "::" after blanks, or "##[" anywhere.
_COMMAND = re.compile(r"^[ \t]*::|##\[", re.MULTILINE)


def github_lines(settings: Settings, results: list[Result]) -> list[str]:
    """Return one workflow command of GitHub for each message that was not right."""
    lines = []
    for done in results:
        why = complaint(settings, done)
        if why:
            file = f"file={_escaped(done.path, ':,')}," if done.path else ""
            what = _escaped(f"{done.name}: {why}")
            lines.append(f"::error {file}title=postprox-rehearse::{what}")
    return lines


def without_commands(text: str) -> str:
    """Return a report in which no text of a message or a filter is a workflow command."""
    return _COMMAND.sub(lambda found: f"{found[0][:-1]}\\x{ord(found[0][-1]):02x}", text)


def _escaped(text: str, more: str = "") -> str:
    """Escape a text as GitHub has it: percent signs and line ends, in a property also `more`."""
    return "".join(
        f"%{ord(character):02X}" if character in "%\r\n" + more else printable(character)
        for character in text
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
            classname=printable(settings.command),
            name=printable(done.name),
            time=f"{done.seconds or 0.0:.3f}",
        )
        why = complaint(settings, done)
        if why:
            ElementTree.SubElement(case, "failure", message=printable(why), type=done.verdict)
        if done.stderr:
            ElementTree.SubElement(case, "system-err").text = done.stderr
    text = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    # A name that nobody can guess: in /tmp another user could put a link there.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        raise CannotRunError(f"cannot write {str(path)!r}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
