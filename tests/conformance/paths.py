"""The paths of all files of the suite other than code.

Rule: only this module contains paths. The transcripts are next to the modules in an installed
package, and in the top directory of a checkout.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
#: The name with which the package is imported. It is tests.conformance in a checkout.
PACKAGE_NAME = __name__.rpartition(".")[0]
#: The top directory of the checkout, which contains the reference implementation. It is meaningless
#: in an installed package.
ROOT = PACKAGE.parents[1]
INSTALLED = (PACKAGE / "transcripts").is_dir()

TRANSCRIPTS = (PACKAGE if INSTALLED else ROOT) / "transcripts"
#: In a checkout, this is a symbolic link to docs/specification.md.
SPECIFICATION = PACKAGE / "specification.md"
IMPLEMENTATIONS = PACKAGE / "implementations"
#: The program that runs an adapter.
ADAPTER_LAUNCHER = PACKAGE / "adapters" / "__main__.py"
TEMPLATES = PACKAGE / "report" / "templates"
#: The properties of random sessions, and the search for differences between two implementations.
PROPERTIES = PACKAGE / "test_properties.py"
COMPARISON = PACKAGE / "test_comparison.py"
COMPARISON_TEST = "test_two_implementations_agree"

#: The suffixes of transcripts and included parts.
SUFFIX = ".smtp"
PART_SUFFIX = ".smtp-part"
