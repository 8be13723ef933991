"""The log: syslog, facility mail, ident postprox, with the pid (log.syslog).

Rule: what comes from outside cannot forge or garble a line; a missing syslog is no failure.
"""

import syslog

#: syslog daemons take lines of 8 KB (RFC 5424 section 6.1 asks for 2 KB); the rest is cut.
_LINE = 2000

syslog.openlog("postprox", syslog.LOG_PID, syslog.LOG_MAIL)


def write(level: int, text: str) -> None:
    """Write a line at `level` (one of `levels`, which are syslog's)."""
    syslog.syslog(level, printable(text)[:_LINE])


def write_fault(error: Exception) -> None:
    """Write where an error of the program itself happened."""
    import traceback

    write(syslog.LOG_ERR, "internal error: " + " ".join(traceback.format_exception(error)))


def printable(text: str) -> str:
    """Return `text` in printable ASCII; everything else is written as an escape."""
    return "".join(
        character if " " <= character <= "~" else ascii(character)[1:-1] for character in text
    )
