"""The `--metrics` file for the textfile collector of Prometheus' node_exporter.

Rule: a reader never sees a partial file (`newfile`). After startup, a failed write does not stop
the server.

Logs: the first failed write of each series of consecutive failures.
"""

import os

from .. import TYPE_CHECKING
from ..core import limits, log_levels
from . import log, newfile

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop


class Metrics:
    """The metrics file `path`, which is written periodically after `begin`.

    text: returns the contents.
    """

    def __init__(self, loop: "Loop", path: str, text: "Callable[[], str]") -> None:
        self._loop = loop
        self._path = path
        self._text = text
        self._failed = False
        #: The time on the loop's clock at which to call `timer`.
        self.deadline = limits.NEVER

    def begin(self) -> None:
        """Write the file for the first time.

        Raises:
            OSError: the file cannot be written.
        """
        newfile.remove_stale(self._path)
        self._write()
        self.deadline = self._loop.clock() + limits.METRICS
        self._loop.add(self)

    def timer(self) -> None:
        """Write the file again."""
        self.deadline = self._loop.clock() + limits.METRICS
        self.write()

    def write(self) -> None:
        """Write the file, and log an error unless the previous write failed too."""
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
