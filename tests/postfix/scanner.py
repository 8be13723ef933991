"""A private clamd, which the tests can stop.

Its database contains only the EICAR test signature, so it starts quickly and downloads nothing.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .instance import PATIENCE, program, wait_for

#: The harmless test string that every scanner detects, split so that scanners ignore this file.
EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"

CLAMD_CONF = """
Foreground yes
DatabaseDirectory {dir}/db
LocalSocket {dir}/clamd.sock
LocalSocketMode 666
LogFile {dir}/clamd.log
MaxThreads 2
StreamMaxLength 100M
"""


class Scanner:
    """clamd in a directory that every user may enter. `config` is the file for clamdscan."""

    def __init__(self, directory: Path) -> None:
        clamd = program("clamd")
        if clamd is None or program("clamdscan") is None:
            pytest.skip("clamd is not installed (Debian: apt-get install clamav-daemon clamdscan)")
        self._clamd = clamd
        self._socket = directory / "clamd.sock"
        self._daemon: subprocess.Popen[bytes] | None = None
        self.config = directory / "clamd.conf"
        (directory / "db").mkdir()
        (directory / "db/test.ndb").write_text(f"Test.EICAR:0:*:{EICAR.encode().hex()}\n")
        self.config.write_text(CLAMD_CONF.format(dir=directory))

    def start(self) -> None:
        """Start the daemon and wait until it listens."""
        command = [self._clamd, f"--config-file={self.config}"]
        self._daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for("clamd to listen", self._socket.is_socket)

    def stop(self) -> None:
        """Stop the daemon if it runs."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(PATIENCE)
            self._daemon = None
        self._socket.unlink(missing_ok=True)
