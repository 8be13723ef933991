"""The build backend: setuptools on the current files, only for wheels.

Rule: a wheel has the files of the checkout. Leftovers of an earlier build are ignored.
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

#: The directory in which setuptools collects files and from which it never removes any.
_GATHERED = Path("build", "lib")

Settings = Mapping[str, str | list[str] | None] | None


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel in *wheel_directory* and return its name."""
    shutil.rmtree(_GATHERED, ignore_errors=True)
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> NoReturn:
    """Exit, because a source distribution could not contain the files outside of this folder."""
    sys.exit(
        "postprox-conformance cannot have a source distribution, because its "
        "transcripts and specification lie outside of this folder; build a "
        "wheel: python -m build --wheel, or pip wheel --no-deps ."
    )
