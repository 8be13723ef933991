"""Write the golden files anew: `python3 -m tests.golden`; then read the difference."""

from __future__ import annotations

from . import GOLDEN, PRODUCERS


def main() -> None:
    """Write every file."""
    for name, produce in PRODUCERS.items():
        (GOLDEN / name).write_text(produce(), encoding="utf-8")


if __name__ == "__main__":
    main()
