"""A program that uses faccessat(2) to test another user's permissions for a file.

Rule: probe.py runs this program as root, in its own session, without a terminal, an environment or
open files. The program changes only its effective IDs. The program's real and saved user IDs remain
root's, so the other user can neither signal nor trace it (kill(2), ptrace(2)). The exit status
indicates the result.
"""

from __future__ import annotations

import os
import sys

#: The exit status for each result. Any other exit status means that the test failed.
ALLOWED, REFUSED = 10, 11


def main() -> int:
    """Test a permission.

    Arguments: the permission (such as os.R_OK), the path, the user ID and the group IDs.
    """
    right, path, user, *groups = sys.argv[1:]
    os.setgroups([int(group) for group in groups])
    os.setegid(int(groups[0]))
    os.seteuid(int(user))
    return ALLOWED if os.access(path, int(right), effective_ids=True) else REFUSED


if __name__ == "__main__":
    sys.exit(main())
