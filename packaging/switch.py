"""Switch to a version of postprox: switch.py LINK VERSION FILE...

VERSION is a directory beside the older versions. LINK is a symbolic link, which the script points
to VERSION. FILE is a command or a manual page, which FILE.new replaces.

Rule: every file is on disk before its rename, and each step is one rename(2). So a session that
starts during the switch uses the old version or the new version. The state after a power failure
is one of the two as well. The previous version remains for running sessions.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

from bytecode import flush, sync

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # renameat2(2)


def main(link: Path, version: Path, files: list[Path]) -> None:
    """Switch to `version`, keep the previous version and remove older ones."""
    previous = link.resolve()
    flush(version)
    sync(version.parent)
    lead(link, version)
    sync(link.parent)
    for file in files:
        new = file.with_name(f"{file.name}.new")
        sync(new)
        new.replace(file)
        sync(file.parent)
    for other in version.parent.iterdir():
        # A file is not a version. The next installation removes versions that could not be removed.
        if other.resolve() not in (version.resolve(), previous):
            shutil.rmtree(other, ignore_errors=True)


def lead(link: Path, version: Path) -> None:
    """Point `link` to `version`."""
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(version, link.parent))
    if link.is_dir() and not link.is_symlink():
        replace_directory(link, new)
    else:
        new.replace(link)


def replace_directory(directory: Path, new: Path) -> None:
    """Replace the directory of an installation without versions by `new`."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(new), _AT_FDCWD, os.fsencode(directory)
        exchanged = libc.renameat2(_AT_FDCWD, *names, _RENAME_EXCHANGE) == 0
    except AttributeError:  # the C library has no renameat2
        exchanged = False
    if exchanged:
        shutil.rmtree(new)
        return
    # rename(2) cannot replace a directory, so for a moment there is none.
    old = directory.with_name(f"{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    directory.rename(old)
    new.replace(directory)
    shutil.rmtree(old)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
