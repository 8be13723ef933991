"""Results as JUnit XML.

Rule: the text for each message comes from `summary.complaint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .summary import complaint
from .text import printable

if TYPE_CHECKING:
    from .options import Settings
    from .summary import Result


def document(settings: Settings, results: list[Result]) -> bytes:
    """Return the XML document."""
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
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text
