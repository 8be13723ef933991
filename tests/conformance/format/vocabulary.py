"""The fixed lists of words that transcripts, result files and reports share.

Rule: each list is defined only here, in display order.
"""

from __future__ import annotations

#: The levels of requirements and of their transcripts, strictest first.
LEVELS = ("must", "should", "may")
#: The kinds of harm to a message or its confidentiality that a violation can cause, worst first.
MAIL_HARMS = ("lost", "duplicated", "unfiltered", "altered", "exposed")
#: All kinds of harm that a violation can cause, worst first.
HARMS = (*MAIL_HARMS, "stalled", "misreported", "inconvenient")
#: The profiles of programs to which a requirement can apply, widest first.
BINDS = ("relay", "transparent", "synchronous", "filter", "postprox")
#: The policies of a program for bare LF in content: deliver it unchanged, as CRLF, or not at all.
BARE_LF_POLICIES = ("pass", "normalise", "refuse")
#: The first words of the sources of a requirement.
SOURCES = ("manual", "RFC", "CVE", "Postfix", "safety")
#: The modes in which a transcript can be run.
MODES = ("stdio", "listen", "command")
#: The outcomes of one transcript in one mode.
OUTCOMES = ("passed", "failed", "diverged", "stale", "skipped")
#: The reasons for a known divergence of an implementation.
KINDS = ("bug", "wontfix", "unclear")
#: The folders of transcripts, which are the first words of clauses and "recorded".
GROUPS = ("cli", "relay", "data", "filter", "files", "listen", "log", "recorded")

#: The environment variables of the filter that contain the envelope (filter.env).
ENVELOPE_VARIABLES = ("SENDER", "RECIPIENT", "REMOTEIP", "HELO")
#: All environment variables of the filter. EMAIL and OUTFILE are paths and differ in each run.
FILTER_VARIABLES = ("EMAIL", "OUTFILE", *ENVELOPE_VARIABLES)

#: Prefixes of the names of results that are not transcripts.
PROPERTY_PREFIX = "properties/"
INVARIANT_PREFIX = "invariant/"
#: INVARIANT_PREFIX in result files of format 1 and in descriptions written for them.
OLD_INVARIANT_PREFIX = "unasked/"


def current_name(name: str) -> str:
    """Return the current name of a result, of which *name* may be a former one."""
    if name.startswith(OLD_INVARIANT_PREFIX):
        return INVARIANT_PREFIX + name.removeprefix(OLD_INVARIANT_PREFIX)
    return name
