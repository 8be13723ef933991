"""Where the suite finds what is no code: the transcripts, the specification, descriptions, pages.

Rule: no other module knows a path. In an installed package the transcripts lie beside the modules;
in a checkout they are taken from where people read them.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
#: The name under which the package is imported: in a checkout tests.conformance.
PACKAGE_NAME = __name__.rpartition(".")[0]
#: The checkout's top, if this is one: there the reference implementation lies.
ROOT = PACKAGE.parents[1]
INSTALLED = (PACKAGE / "transcripts").is_dir()

TRANSCRIPTS = (PACKAGE if INSTALLED else ROOT) / "transcripts"
#: In a checkout a link to docs/specification.md.
SPECIFICATION = PACKAGE / "specification.md"
IMPLEMENTATIONS = PACKAGE / "implementations"
TEMPLATES = PACKAGE / "report" / "templates"
#: The properties of random sessions, and the search for where two implementations differ.
PROPERTIES = PACKAGE / "test_properties.py"
COMPARISON = PACKAGE / "test_comparison.py"
COMPARISON_TEST = "test_two_implementations_agree"

#: How the name of a transcript, and of a part that is only included, ends.
SUFFIX = ".smtp"
PART_SUFFIX = ".smtp-part"
