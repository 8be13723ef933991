"""The suite's internal imports are relative, because the package is not named like its folder.

The other import rules are the `[tool.importlinter]` contracts in pyproject.toml.
"""

from __future__ import annotations

import re

from tests.conformance.paths import PACKAGE

ABSOLUTE = re.compile(r"^\s*(?:from|import) tests\b", re.MULTILINE)


def test_suite_imports_are_relative() -> None:
    assert not [file for file in PACKAGE.rglob("*.py") if ABSOLUTE.search(file.read_text("utf-8"))]
