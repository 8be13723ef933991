"""The user that a test runs as."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: A user who is not root.
NOBODY = 65534


@contextmanager
def as_an_ordinary_user() -> Iterator[str]:
    """Be no root meanwhile, and have a directory to write to."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        user = os.geteuid()
        os.seteuid(user or NOBODY)
        try:
            yield directory
        finally:
            os.seteuid(user)
