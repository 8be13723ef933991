"""python3 -m tests.golden: update the golden files. Review the differences afterwards."""

from __future__ import annotations

from . import GOLDEN, PRODUCERS


def main() -> None:
    """Write all golden files."""
    for name, produce in PRODUCERS.items():
        (GOLDEN / name).write_text(produce(), encoding="utf-8")


if __name__ == "__main__":
    main()
