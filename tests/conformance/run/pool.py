"""The pools of an adapter whose program keeps running across transcripts.

Rule: the run's controller starts and ends the pools. Its workers only use them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..play.implementation import Implementation

#: The environment variables with the pools' directory and a worker's slot, which `adapters.pool`
#: reads.
_DIRECTORY = "POSTPROX_ADAPTER_POOL"
_SLOT = "POSTPROX_ADAPTER_SLOT"


def use_slot_of(worker: str) -> None:
    """Use the slot of a pytest-xdist worker such as gw3, or else the first slot."""
    os.environ[_SLOT] = worker.removeprefix("gw") or "0"


class Pools:
    """The pool of the program and the pool of its control, with one slot for each worker."""

    def __init__(self, slots: int, *implementations: Implementation) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="postprox-pool-"))
        self._directory.chmod(0o755)
        self._processes = [self._started(slots, one) for one in implementations]
        os.environ[_DIRECTORY] = str(self._directory)

    def _started(self, slots: int, implementation: Implementation) -> subprocess.Popen[bytes]:
        *launcher, adapter = implementation.argv
        pool = [str(self._directory), str(slots), str(os.getpid())]
        command = [*launcher, "--pool", *pool, adapter]
        return subprocess.Popen(
            command, env={**os.environ, **implementation.env}, stdin=subprocess.DEVNULL
        )

    def close(self) -> None:
        """End the programs, and remove their files."""
        os.environ.pop(_DIRECTORY, None)
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
