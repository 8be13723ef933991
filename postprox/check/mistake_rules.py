"""The effects of mistakes in filter scripts.

Rule: each check is a pure function.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from ..core.options import Options
from . import fixes
from .facts import ProgramFacts
from .filter_effects import effect_of_failure, effect_of_lost_reply
from .findings import Fault
from .fixes import Edit
from .routes import Proxy
from .scripts.mistake import Kind, Mistake

#: The finding and the effect of each kind of mistake. Other modules report the other kinds.
_EFFECTS = {
    Kind.PIPE: (
        "exit-status",
        (
            "uses the exit status of the last program in a pipeline, not that of the scanner; "
            "mail that the scanner rejects passes the filter"
        ),
    ),
    Kind.STATUS: (
        "exit-status",
        (
            "follows a reply that rejects mail, but does not exit with status 1, which the proxy "
            "requires for a rejection; the mail {if_failed}"
        ),
    ),
    Kind.ZERO: (
        "exit-status",
        (
            "follows a reply that rejects mail, but does not exit with status 1, which the proxy "
            "requires for a rejection; the shell sets status 0, so the mail passes the filter"
        ),
    ),
    Kind.EXEC: (
        "lost-reply",
        ("redirects standard error, from which the proxy reads the filter's reply; {unanswered}"),
    ),
    Kind.TRACE: (
        "lost-reply",
        (
            "lets the shell print each command to standard error, so the last line there is not "
            "the filter's reply; {unanswered}"
        ),
    ),
    Kind.SUBSHELL: (
        "exit-status",
        (
            "runs the loop in a subshell, because the loop is part of a pipeline, so later lines "
            "do not see the variables that it sets; mail that the filter should reject passes"
        ),
    ),
    Kind.LOOP_EXIT: (
        "exit-status",
        (
            "runs the loop in a subshell, because the loop is part of a pipeline, so exit ends "
            "only the loop and not the script; mail that the filter should reject passes"
        ),
    ),
    Kind.READ: (
        "filter-damage",
        (
            "copies the message with read, which removes blanks and backslashes; each message is "
            "damaged"
        ),
    ),
    Kind.BLANK: (
        "filter-damage",
        (
            "prints an empty line or a line that is not a header field before the message, so the"
            " header of the message becomes part of its body"
        ),
    ),
    Kind.PARTIAL: (
        "filter-damage",
        (
            "writes $OUTFILE with a program that ends early if it cannot process a message, but "
            "the filter ignores the program's exit status; such a message is truncated"
        ),
    ),
    Kind.UNSAVED: (
        "filter-damage",
        (
            "saves the message and then discards it, even if the message could not be saved; such"
            " a message is lost"
        ),
    ),
    Kind.REFUSED: (
        "exit-status",
        (
            "is the last one, and its exit status is never 0; all mail that the filter does not "
            "reject {if_refused}"
        ),
    ),
    Kind.QUOTES: (
        "syntax",
        (
            "has typographic quotes, which the shell does not remove, so a command gets a wrong "
            "argument; mail is deferred or passes unfiltered"
        ),
    ),
    Kind.LOCK: (
        "time-limit",
        (
            "waits for a lock that remains if the filter is killed, for example after the time "
            "limit (-t); after that, each filter waits until it is killed, and {effect}"
        ),
    ),
    Kind.SEARCH: (
        "exit-status",
        (
            "looks for a virus only in the scanner's output and ignores the scanner's exit "
            "status; if the scanner fails, for example because clamd is not running, all mail "
            "passes unfiltered"
        ),
    ),
    Kind.UNTESTED: (
        "exit-status",
        (
            "runs a scanner, but the next line tests only for status 1 (a virus); if the scanner "
            "fails or is missing, all mail passes unfiltered"
        ),
    ),
    Kind.OVERWRITTEN: (
        "filter",
        ("overwrites $EMAIL or $OUTFILE, the path of the message or of the result; {effect}"),
    ),
    Kind.INPUT: (
        "filter",
        (
            "reads standard input, which is empty; the message is in the file $EMAIL, so the "
            "filter does not see its text, and all mail passes or is deferred"
        ),
    ),
    Kind.STALE: (
        "exit-status",
        (
            "tests the status of the previous line, not that of the scan; mail is rejected or "
            "passes by mistake"
        ),
    ),
    Kind.EMPTY: (
        "filter",
        (
            "lacks $EMAIL and $OUTFILE, which the shell probably replaced with nothing while the "
            "filter was written (cat << EOF without quotes); {effect}"
        ),
    ),
    Kind.UNQUOTED: (
        "filter",
        (
            "tests a variable without quotes; the test is always true if the variable is empty; "
            "mail is rejected or passes by mistake"
        ),
    ),
    Kind.LOGGED: (
        "filter-damage",
        (
            "writes a log entry to $OUTFILE, whose content replaces the message; the original "
            "text is lost"
        ),
    ),
    Kind.FOREIGN: (
        "filter",
        (
            "uses a variable that neither the proxy nor the script sets; its value is empty, so "
            "mail may be deferred or pass unfiltered"
        ),
    ),
    Kind.RESULT: (
        "exit-status",
        (
            "ignores the result of the function, which should be the exit status; the filter "
            "always ends with status 0, so mail that it should reject passes"
        ),
    ),
    Kind.CAUGHT: (
        "exit-status",
        (
            "also catches SystemExit, so sys.exit(1) does not end the filter with status 1; mail "
            "that the filter should reject passes or is deferred"
        ),
    ),
    Kind.SHELL: (
        "injection",
        (
            "makes text from the SMTP session part of a shell command; any client can run "
            "commands as the user of the proxy"
        ),
    ),
    Kind.SYSEXIT: (
        "exit-status",
        (
            "rejects mail with a status from sysexits.h, which only pipe(8) expects. The proxy "
            "requires status 1 and a reply such as 550, and treats other statuses as failures; "
            "such mail {if_failed}"
        ),
    ),
    Kind.UNFOUND: (
        "exit-status",
        (
            "ends the script with status 1 if grep(1) finds nothing, because of the option -e of "
            "the shell; such mail {if_refused}"
        ),
    ),
    Kind.SHARED: (
        "filter-damage",
        (
            "writes each message to the same file; if two filters run at the same time, messages "
            "are mixed up and reach the wrong recipients"
        ),
    ),
    Kind.INJECTION: (
        "injection",
        (
            "makes text from the SMTP session part of a shell command; any client can run "
            "commands as the user of the proxy"
        ),
    ),
    Kind.UNANSWERED: (
        "lost-reply",
        (
            "exits with status 1, but no line prints a reply such as 550; with --strict, the "
            "proxy treats this as a failure, so the mail is deferred (451) until senders give up"
        ),
    ),
    Kind.LEFT: (
        "filter-write",
        (
            "creates a temporary file that the filter never removes; the files accumulate until "
            "the file system is full, and then mail is deferred"
        ),
    ),
    Kind.CHANGE: (
        "lost-change",
        (
            "changes the file $EMAIL, but the proxy reads changes only from $OUTFILE; the mail is"
            " delivered unchanged"
        ),
    ),
    Kind.OUTPUT: (
        "lost-change",
        (
            "prints the changed message, but the proxy reads changes only from $OUTFILE; the mail"
            " is delivered unchanged"
        ),
    ),
    Kind.PRIVATE: (
        "filter",
        (
            "passes only the name of $EMAIL to clamd, which runs as another user and cannot read "
            "the file, so clamdscan fails; {effect}"
        ),
    ),
}


def mistakes(proxy: Proxy, wanted: Options, seen: ProgramFacts) -> Iterator[Fault]:
    """Report the lines of a script that give the filter a wrong result."""
    for found in seen.mistakes:
        if found.kind in _EFFECTS and not _is_intended(proxy, wanted, found):
            name, effect = _EFFECTS[found.kind]
            yield Fault(
                name,
                proxy.where,
                f"line {found.number} of the filter {seen.path} {_filled(effect, wanted)}: "
                f"{_shown(found.line)}",
                (_corrected(seen, found.correction),),
            )


def _filled(effect: str, wanted: Options) -> str:
    """Insert into the text of an effect the parts that depend on the options of the proxy."""
    deferred = "is deferred (451) until senders give up"
    return effect.format(
        effect=effect_of_failure(wanted),
        unanswered=effect_of_lost_reply(wanted),
        if_failed=deferred if wanted.reject else "passes the filter",
        if_refused=deferred if wanted.strict else "is rejected",
    )


def _is_intended(proxy: Proxy, wanted: Options, found: Mistake) -> bool:
    """Return whether the options of the proxy make a line harmless."""
    command = wanted.command or ""
    if found.kind is Kind.UNANSWERED:
        return not wanted.strict  # the proxy then sends a reply of its own
    if found.kind is Kind.OUTPUT:
        return bool(re.search("[>|]", command))
    if found.kind is Kind.FOREIGN:
        name = found.path.partition(" ")[0]
        environment = proxy.unit.environment if proxy.unit else {}
        return name in environment or bool(re.search(rf"\b{name}=", command))
    return False


def _shown(line: str) -> str:
    """Decode a line of a script in which each character represents one octet of UTF-8."""
    return line.encode("latin-1", "replace").decode("utf-8", "replace")


def _corrected(seen: ProgramFacts, correction: str) -> Edit:
    """Return a command that corrects the script, or that prints it if no correction is known.

    Each character of the correction represents one octet.
    """
    path = shlex.quote(seen.path)
    if not correction:
        return fixes.run(f"cat -n {path}")
    octets = re.sub("[^\0-\x7f]", lambda found: f"\\x{ord(found[0]):02x}", correction)
    locale = "LC_ALL=C " if octets != correction else ""
    return fixes.run(f"{locale}sed -i {shlex.quote(octets)} {path}")
