"""Tests of the standard descriptors and of file names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from postprox.shell.system import file_name, silence
from tests.support.proxies import environment

FILLED = """
import os, sys
from postprox.shell.system import add_standard_descriptors
for descriptor in map(int, sys.argv[2:]):
    os.close(descriptor)
add_standard_descriptors()
targets = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
further = os.open("/dev/null", os.O_RDONLY)
with open(sys.argv[1], "w") as answer:
    print(*targets, further > 2, file=answer)
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_closed_standard_descriptors_are_opened(closed: tuple[int, ...], tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", FILLED, str(tmp_path / "answer"), *map(str, closed)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        timeout=20,
        check=True,
    )
    assert (tmp_path / "answer").read_text() == "/dev/null /dev/null /dev/null True\n"


def test_silenced_descriptor_discards_output() -> None:
    silence = "from postprox.shell import system; system.silence(2)"
    program = f"import os; {silence}; os.write(2, b'word')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env=environment(),
        timeout=20,
        check=True,
    )
    assert done.stderr == b""


def test_silenced_descriptor_leaves_no_additional_descriptor_open() -> None:
    descriptor = os.dup(1)
    before = os.listdir("/dev/fd")  # noqa: PTH208 - only names are needed
    silence(descriptor)
    assert os.listdir("/dev/fd") == before  # noqa: PTH208
    os.close(descriptor)


@pytest.mark.parametrize("octets", [b"/plain", "/caf\xe9".encode(), b"/caf\xe9"])
def test_file_name_octets_are_preserved(octets: bytes) -> None:
    assert file_name(os.fsdecode(octets)) == octets
