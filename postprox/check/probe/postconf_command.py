"""Runs postconf(1).

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile

from ..postconf import UnreadableError
from . import system

#: The maximum length of an error message of postconf(1), which can contain a whole entry.
LARGEST_REASON = 200


def outputs(directory: str) -> tuple[str, str, str]:
    """Return postconf's output for main.cf, for master.cf and for the `-o` parameters."""
    main, master = run(directory, "-nx"), run(directory, "-M")
    return main, master, run(directory, "-Px")


def default_directory() -> str:
    """Return Postfix's default directory, or "" if it is unknown."""
    if own := os.environ.get("MAIL_CONFIG"):
        return own
    # With an empty directory, an error in master.cf cannot make postconf(1) fail.
    with tempfile.TemporaryDirectory() as empty:
        try:
            return run(empty, "-dh", "config_directory").strip()
        except UnreadableError:
            return ""


#: A marker that a version control system adds to a file.
_CONFLICT = re.compile(r"<<<<<<<|=======|>>>>>>>")


def run(directory: str, *options: str) -> str:
    program = shutil.which("postconf", path=system.SYSTEMD_PATH)
    if program is None:
        raise UnreadableError("postconf is missing; install Postfix")
    command = [program, *(["-c", directory] if directory else []), *options]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=system.TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreadableError(
            f"{shlex.join(command)}: timed out after {system.TIMEOUT:g} s"
        ) from None
    if done.returncode:
        lines = done.stderr.decode(errors="backslashreplace").strip().splitlines()
        fatal = [line for line in lines if "fatal:" in line] or lines or ["no error message"]
        reason = fatal[0].partition("fatal: ")[2] or fatal[0]
        reason = reason if len(reason) <= LARGEST_REASON else f"{reason[:LARGEST_REASON]}..."
        if "bad field count" in reason:
            reason += "; the lines of an entry after the first must begin with a blank or tab"
        if _CONFLICT.search(reason):
            reason += "; resolve the merge conflict, because no Postfix program can read this file"
        elif "missing '=' after attribute name" in reason:
            reason += "; correct or remove this line, because no Postfix program can read this file"
        raise UnreadableError(f"{shlex.join(command)}: {reason}")
    return done.stdout.decode(errors="backslashreplace").replace("\0", "\\x00")
