"""The installed proxy with room for more sessions than the limit of open files would allow.

    python3 -IS many.py LIBRARY DESCRIPTORS [OPTIONS OF POSTPROX ...]

The proxy takes no more sessions than could all have a filter at work, each with all the descriptors
that this may need. Most of the sessions measured here have nothing at work, and hold `DESCRIPTORS`.

Rule: nothing else is changed.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the proxy that is installed in `LIBRARY`."""
    library, descriptors = sys.argv[1:3]
    del sys.argv[1:3]
    sys.path.insert(0, library)
    from postprox.__main__ import main as postprox  # noqa: PLC0415 (it lies in `LIBRARY`)
    from postprox.core import limits  # noqa: PLC0415

    setattr(limits, "SESSION_DESCRIPTORS", int(descriptors))  # noqa: B010
    return postprox()


if __name__ == "__main__":
    sys.exit(main())
