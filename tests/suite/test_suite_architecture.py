"""The suite's imports of itself are relative, because its package has another name than its folder.

The contracts of `[tool.importlinter]` in pyproject.toml have the other rules for imports.
"""

from __future__ import annotations

import re

from tests.conformance.paths import PACKAGE

ABSOLUTE = re.compile(r"^\s*(?:from|import) tests\b", re.MULTILINE)


def test_imports_of_suite_are_relative() -> None:
    assert not [file for file in PACKAGE.rglob("*.py") if ABSOLUTE.search(file.read_text("utf-8"))]
