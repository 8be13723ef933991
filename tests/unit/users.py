"""A context that runs a test as an ordinary user."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The user id of the user nobody.
NOBODY = 65534


@contextmanager
def as_an_ordinary_user() -> Iterator[str]:
    """Drop root privileges temporarily, and yield a writable directory."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        user = os.geteuid()
        os.seteuid(user or NOBODY)
        try:
            yield directory
        finally:
            os.seteuid(user)
