"""A helper that runs postprox-rehearse in a temporary directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND_LINE = [sys.executable, "-m", "postprox.rehearse"]
MESSAGE = b"From: Ann <ann@example.net>\nTo: Ben <ben@example.org>\n\nhello\n"


class Rehearse:
    """The command, run in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temporary),
        }

    def __call__(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND_LINE, *arguments],
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        texts = (stream.decode().replace("\r\n", "\n") for stream in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, *texts)

    def save(self, content: bytes, name: str = "message.eml") -> str:
        (self.directory / name).write_bytes(content)
        return name

    def one(self, command: str, *arguments: str, content: bytes = MESSAGE, status: int = 0) -> Any:
        """Run the command on a message, check its exit status and return the JSON entry."""
        result = self("--json", "-c", command, *arguments, self.save(content))
        assert result.returncode == status, result.stderr
        (message,) = json.loads(result.stdout)["messages"]
        return message
