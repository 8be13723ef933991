"""The build backend, which uses setuptools and builds only wheels.

Rule: a wheel contains the checkout's current files, and the specification as JSON. Files left over
from earlier builds are ignored.
"""

from __future__ import annotations

import shutil
import subprocess
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

#: The directory in which setuptools collects files but never removes any.
_GATHERED = Path("build", "lib")

_SPECIFICATION = Path("specification.json")

Settings = Mapping[str, str | list[str] | None] | None


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel in *wheel_directory* and return its name."""
    shutil.rmtree(_GATHERED, ignore_errors=True)
    _SPECIFICATION.write_text(_specification_json(), encoding="utf-8")
    try:
        name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    finally:
        _SPECIFICATION.unlink()
    return name


def _specification_json() -> str:
    """Return the specification as JSON, created by a program that imports only the parser."""
    here = Path.cwd()
    program = (
        "import sys, types; package = types.ModuleType('suite'); package.__path__ = [sys.argv[1]]; "
        "sys.modules['suite'] = package; from suite.format import requirements as read; "
        "print(read.as_json(read.specification()), end='')"
    )
    command = [sys.executable, "-c", program, str(here)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> NoReturn:
    """Exit with an error, because an sdist could not contain files outside this folder."""
    sys.exit(
        "postprox-conformance cannot have a source distribution, because its transcripts and "
        "specification are outside this folder; build a wheel with python -m build --wheel, or pip "
        "wheel --no-deps ."
    )
