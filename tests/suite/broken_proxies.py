"""All broken proxies of tests/fixtures, by GROUP.FUNCTION."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tests import fixtures
from tests.fixtures import BROKEN_PROXIES

__all__ = ["BROKEN_PROXIES", "GROUPS"]

GROUPS = [
    module.name
    for module in pkgutil.iter_modules(fixtures.__path__)
    if not module.name.startswith("_")
]
for group in GROUPS:
    import_module(f"{fixtures.__name__}.{group}")
