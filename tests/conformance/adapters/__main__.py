"""The program that the suite runs for an adapter. It calls `command.main`.

Rule: the kit is named `postprox_conformance.adapters` both in a checkout and in an installed
package. It is imported without the suite's other modules and without site-packages.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

_NAME = "postprox_conformance"


def _provide_package() -> None:
    """Make the kit importable as `postprox_conformance.adapters`."""
    # Modules in the directory of this file would hide modules of the standard library.
    del sys.path[0]
    package = ModuleType(_NAME)
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules[_NAME] = package


if __name__ == "__main__":
    _provide_package()
    import_module(f"{_NAME}.adapters.command").main(sys.argv[1:])
