"""A file for Prometheus' node_exporter, which its textfile collector reads (`--metrics`).

Rule: the file is whole whenever it is looked at (`newfile`); one that cannot be written later on
stops nothing.
"""

import os
from pathlib import Path

from .. import TYPE_CHECKING
from ..core import limits, log_levels
from . import log, newfile

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop


class Metrics:
    """The file `path`, written every now and then from `begin` on.

    text: returns what is to be in it.
    """

    def __init__(self, loop: "Loop", path: str, text: "Callable[[], str]") -> None:
        self._loop = loop
        self._path = Path(path)
        self._text = text
        self._failed = False
        #: When `timer` is to be called, on the loop's clock.
        self.deadline = limits.NEVER

    def begin(self) -> None:
        """Write it for the first time.

        Raises:
            OSError: it cannot be written.
        """
        newfile.remove_stale(self._path.parent)
        self._write()
        self.deadline = self._loop.clock() + limits.STATUS
        self._loop.add(self)

    def timer(self) -> None:
        """Write it again."""
        self.deadline = self._loop.clock() + limits.STATUS
        self.write()

    def write(self) -> None:
        """Write it; that it cannot be is a warning, once."""
        try:
            self._write()
        except OSError as error:
            if not self._failed:
                log.write(
                    log_levels.WARNING, f"cannot write --metrics {self._path}: {error.strerror}"
                )
            self._failed = True
        else:
            self._failed = False

    def _write(self) -> None:
        os.close(newfile.replace(self._path, self._text().encode("ascii")))
