"""Runs the installed proxy with more sessions than the limit of open files would allow.

    python3 -IS many.py LIBRARY DESCRIPTORS [OPTIONS OF POSTPROX ...]

The proxy accepts only as many sessions as could all run a filter, with all required descriptors.
Most sessions in the benchmarks are idle and use only `DESCRIPTORS`.

Rule: this program changes nothing else.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the proxy installed in `LIBRARY`."""
    library, descriptors = sys.argv[1:3]
    del sys.argv[1:3]
    sys.path.insert(0, library)
    from postprox.__main__ import main as postprox  # noqa: PLC0415 (it lies in `LIBRARY`)
    from postprox.core import limits  # noqa: PLC0415

    setattr(limits, "SESSION_DESCRIPTORS", int(descriptors))  # noqa: B010
    return postprox()


if __name__ == "__main__":
    sys.exit(main())
