"""The kit's command: `[--control JSON] ADAPTER.py ARGUMENTS`.

`--filter JSON` runs a filter. `--pool DIRECTORY SLOTS PID` before ADAPTER.py starts a pool.

Rule: an adapter is loaded by its path. It imports the kit as `postprox_conformance.adapters`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import pool
from .adapter import Adapter
from .command_line import UsageError, parse
from .control import control
from .filter_command import FilterCommand, message_of_reference
from .launch import launch

#: The variable that contains the adapter in its file.
_ADAPTER = "ADAPTER"
#: A version in the output of a program.
_VERSION = re.compile(r"\d+(?:\.\d+)+\w*")


def main(arguments: Sequence[str]) -> None:
    """Run an adapter, its control, or the filter of one of them."""
    if arguments[0] == "--filter":
        sys.exit(_filter(arguments[1], arguments[2:]))
    reference = None
    if arguments[0] == "--control":
        reference, arguments = json.loads(arguments[1]), arguments[2:]
    of_pool = None
    if arguments[0] == "--pool":
        directory, slots, suite, *arguments = arguments[1:]
        of_pool = pool.Pool(Path(directory), int(slots), int(suite))
    file, words = Path(arguments[0]), arguments[1:]
    if reference is not None and list(words) == ["--version"]:
        os.execvp(reference[0], [*reference, *words])  # noqa: S606 - no shell is needed
    adapter = _read(file) if reference is None else control(_read(file), reference)
    if list(words) == ["--version"]:
        sys.exit(_print_version(adapter))
    if of_pool is not None:
        pool.serve(adapter, file, of_pool)
    try:
        options = parse(words)
    except UsageError as error:
        sys.exit(f"{file.name}: {error}")
    if there := os.environ.get(pool.DIRECTORY):
        pool.borrow(adapter, file, options, Path(there))
    launch(adapter, file, options)


def _read(file: Path) -> Adapter:
    """Return the adapter in *file*."""
    spec = importlib.util.spec_from_file_location("adapter", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    adapter = getattr(module, _ADAPTER, None)
    if not isinstance(adapter, Adapter):
        sys.exit(f"{file}: missing {_ADAPTER} = Adapter(...)")
    return adapter


def _print_version(adapter: Adapter) -> int:
    """Print the version of the program. Return 1 if the adapter cannot find it."""
    if not adapter.version:
        return 1
    argv = list(map(str, adapter.version))
    try:
        printed = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")
    found = _VERSION.search(printed.stdout + printed.stderr)
    if found:
        print(found[0])
    return 0 if found else 1


def _filter(text: str, arguments: Sequence[str]) -> int:
    """Run the filter that *text* describes. Return its exit status for the program."""
    call = FilterCommand(**json.loads(text))
    message = message_of_reference if call.is_control else _read(Path(call.adapter)).message
    assert message is not None
    return call.run(message(arguments))
