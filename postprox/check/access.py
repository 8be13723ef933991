"""A program that finds out what another user may do with a file, by access(2).

Rule: machine.py runs it as root, in a session of its own, without terminal, environment or open
files. Only the effective ids change. The real and the saved user stay root, so that the other user
can neither signal nor trace the process (kill(2), ptrace(2)). The exit status is the answer.
"""

from __future__ import annotations

import os
import sys

#: The exit status for each answer. Anything else is no answer.
ALLOWED, REFUSED = 10, 11


def main() -> int:
    """Answer for the arguments: right (os.W_OK, os.X_OK), path, user id, group ids."""
    right, path, user, *groups = sys.argv[1:]
    os.setgroups([int(group) for group in groups])
    os.setegid(int(groups[0]))
    os.seteuid(int(user))
    return ALLOWED if os.access(path, int(right), effective_ids=True) else REFUSED


if __name__ == "__main__":
    sys.exit(main())
