"""How the package is built: as setuptools does it, from what is here now, and as a wheel only.

Rule: a wheel holds what the checkout holds; what an earlier build has left counts for nothing.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from setuptools import build_meta

get_requires_for_build_wheel = build_meta.get_requires_for_build_wheel
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
get_requires_for_build_editable = build_meta.get_requires_for_build_editable
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable
build_editable = build_meta.build_editable

#: Where setuptools gathers what it packs; it takes nothing away there.
_GATHERED = Path("build", "lib")

Settings = Mapping[str, str | list[str] | None] | None


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """The wheel's name, once it is in *wheel_directory*."""
    shutil.rmtree(_GATHERED, ignore_errors=True)
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> NoReturn:
    """There is none: it could not hold what lies outside of this folder."""
    sys.exit(
        "postprox-conformance has no source distribution: its transcripts and specification lie "
        "outside of this folder. Build a wheel: python -m build --wheel, or pip wheel --no-deps ."
    )
